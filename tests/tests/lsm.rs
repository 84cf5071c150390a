//! AppArmor and SELinux: on a machine that has them the container is seen
//! confined, on one that has not the demand is seen refused.

use corten_api::cri;
use corten_api::cri::security_profile::ProfileType;
use corten_tests::client::Container;
use corten_tests::{Machine, Scene};

fn apparmor(kind: ProfileType, name: &str) -> impl Fn(&mut Container) {
    let profile = cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() };
    move |container| container.security().apparmor = Some(profile.clone())
}

#[allow(deprecated)]
fn old_apparmor(name: &str) -> impl Fn(&mut Container) {
    let name = name.to_owned();
    move |container| container.security().apparmor_profile.clone_from(&name)
}

#[test]
fn apparmor_confines_or_says_that_it_cannot() {
    Machine::run(async |machine, daemon| {
        let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y'));
        let mut scene = Scene::new(machine, daemon, |_| {}).await;
        for ask in ["no-such-profile", "localhost/no-such-profile"] {
            let error = scene.refused(apparmor(ProfileType::Localhost, ask)).await;
            assert!(error.contains("no-such-profile"), "{error}");
            assert!(error.contains(if on { "not loaded" } else { "not enabled" }), "{error}");
        }
        let error = scene.refused(old_apparmor("localhost/no-such-profile")).await;
        assert!(error.contains("no-such-profile"), "{error}");
        let error = scene.refused(old_apparmor("nonsense")).await;
        assert!(error.contains("nonsense"), "{error}");
        if !on {
            // There is nothing that could confine: like on other nodes of its kind.
            scene.says("true", apparmor(ProfileType::RuntimeDefault, "")).await;
            scene.says("true", old_apparmor("runtime/default")).await;
            scene.says("true", apparmor(ProfileType::Unconfined, "")).await;
            return;
        }
        let look = "cat /proc/self/attr/apparmor/current";
        assert_eq!(scene.says(look, |_| {}).await, "corten-default (enforce)\n");
        for ask in ["runtime/default", "localhost/corten-default"] {
            assert_eq!(scene.says(look, old_apparmor(ask)).await, "corten-default (enforce)\n");
        }
        let unconfined = apparmor(ProfileType::Unconfined, "");
        assert_eq!(scene.says(look, &unconfined).await, "unconfined\n");
        // The new field counts where both are there.
        let said = scene
            .says(look, |container| {
                old_apparmor("localhost/no-such-profile")(container);
                unconfined(container);
            })
            .await;
        assert_eq!(said, "unconfined\n");
        let id = scene.idle(apparmor(ProfileType::RuntimeDefault, "")).await;
        assert_eq!(scene.client.shell(&id, look).await, "corten-default (enforce)\n");
        let mount = "mount -t tmpfs x /tmp 2>&1 || true; kill -0 1 && echo signalled";
        let said = scene.client.shell(&id, mount).await;
        assert!(said.contains("ermission denied") && said.contains("signalled"), "{said}");
        scene.client.stop(&id, 0).await.expect("it can be killed");
    });
}
