//! The scope of a pod, where systemd makes cgroups.

use super::{Inner, blocking};
use crate::error::Result;
use crate::table::Sandbox;

/// The group of the shim, in its pod's scope: no group holds processes and
/// groups at the same time.
const SHIM_GROUP: &str = "shim";

impl Inner {
    /// Makes the scope around a shim that has just been started, if the pod has
    /// one. It is systemd's until the shim is in a group below; from then on
    /// groups are made in it as in any other.
    pub(super) async fn start_scope(&self, sandbox: &Sandbox, shim: i32) -> Result<()> {
        let (scope, cgroup) = {
            let record = sandbox.record.borrow();
            (record.scope.clone(), record.cgroup.clone())
        };
        let Some(scope) = scope else { return Ok(()) };
        let what = format!("Pod {} of {}", sandbox.config.name, sandbox.config.namespace);
        self.systemd.start_scope(&scope, shim, &what).await?;
        let cgroups = self.cgroups.clone();
        blocking(move || {
            let group = cgroups.create(&format!("{cgroup}/{SHIM_GROUP}"), &Default::default())?;
            Ok(group.adopt(shim)?)
        })
        .await
    }
}
