//! What cannot be launched says at which step, and why.

use super::kit::*;
use crate::launch::*;

fn run(image: &Image, more: &[Step<'_>], path: &str) -> (u32, Outcome) {
    use std::os::fd::AsFd;
    let root = image.mount();
    let (candidates, args, env) = (List::new([path]), List::new([path]), List::new(["A=1"]));
    let last = Step::Exec { candidates: candidates.get(), args: args.get(), env: env.get() };
    let steps = container_steps(more, last);
    let outcome = run_with(&steps, OWN, Join::Parents, &[root.as_fd()]).finish();
    (steps.len() as u32 - 1, outcome)
}

#[test]
fn a_missing_command() {
    let (last, outcome) = run(&Image::new(), &[], "/no/such");
    assert_eq!(outcome.failed, Some((last, libc::ENOENT)));
    assert_eq!(outcome.code, 255);
}

#[test]
fn a_command_that_may_not_be_executed() {
    let image = Image::new();
    std::fs::write(image.path().join("text"), "text").expect("write");
    let (last, outcome) = run(&image, &[], "/text");
    assert_eq!(outcome.failed, Some((last, libc::EACCES)));
}

#[test]
fn a_step_in_between() {
    let more = [Step::WorkingDirectory { path: c"/nowhere" }];
    let (last, outcome) = run(&Image::new(), &more, "/bin/true");
    assert_eq!(outcome.failed, Some((last - 1, libc::ENOENT)));
}

#[test]
fn a_hook_that_fails() {
    let (args, env) = (List::new(["/bin/sh", "-c", "exit 3"]), List::new(["A=1"]));
    let hook = Step::Hook {
        args: args.get(),
        env: env.get(),
        state_before_pid: b"{",
        state_after_pid: b"}",
        timeout_ms: 10_000,
    };
    let (last, outcome) = run(&Image::new(), &[hook], "/bin/true");
    assert_eq!(outcome.failed, Some((last - 1, libc::ECHILD)));
}

#[test]
fn a_hook_that_hangs() {
    let (args, env) = (List::new(["/bin/sleep", "600"]), List::new(["A=1"]));
    let hook = Step::Hook {
        args: args.get(),
        env: env.get(),
        state_before_pid: b"",
        state_after_pid: b"",
        timeout_ms: 20,
    };
    let (last, outcome) = run(&Image::new(), &[hook], "/bin/true");
    assert_eq!(outcome.failed, Some((last - 1, libc::ETIMEDOUT)));
}

#[test]
fn a_parent_that_goes_takes_the_child_along() {
    let image = Image::new();
    let running = start(&image, &[Step::AwaitStart], "echo never");
    assert!(matches!(running.child.wait_message(), Ok(Message::Created)));
    let pidfd = running.child.into_pidfd();
    let status = rustix::process::waitid(
        rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
        rustix::process::WaitIdOptions::EXITED,
    );
    assert_eq!(status.expect("waitid").expect("status").exit_status(), Some(255));
}
