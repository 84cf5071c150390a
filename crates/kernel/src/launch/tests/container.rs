//! A whole container, and what it sees.

use super::kit::*;
use crate::launch::*;

#[test]
fn a_shell_in_its_own_world() {
    let image = Image::new();
    let outcome = container(
        &image,
        &[Step::AwaitStart],
        "echo $$; cat /proc/sys/kernel/hostname; ls /; ls /dev; cat /proc/self/mountinfo | wc -l; \
         ls -l /proc/self/fd; cat /proc/self/status | grep -i sigign; umask",
    );
    assert_eq!(outcome.failed, None, "{outcome:?}");
    assert!(outcome.output.starts_with("1\ntestpod\nbin\ndev\netc\nproc\nsys\ntmp\n"), "{outcome:?}");
    assert!(outcome.output.contains("SigIgn:\t0000000000000000"), "{outcome:?}");
    assert_eq!(outcome.code, 0);
}
