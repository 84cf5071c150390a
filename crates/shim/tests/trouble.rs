//! What goes wrong: hung logs, endless execs, orphans, crowds, nonsense.

mod kit;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use corten_base::ExecId;
use corten_protocol::frame::*;
use kit::*;

/// A group of its own in the v2 hierarchy, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let hierarchy = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find(|path| PathBuf::from(path).join("cgroup.controllers").exists())
            .expect("a v2 hierarchy");
        let path =
            PathBuf::from(hierarchy).join(format!("shim-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> [File; 2] {
        let kill = File::options().write(true).open(self.0.join("cgroup.kill")).unwrap();
        [File::open(&self.0).unwrap(), kill]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        eventually("an empty group", || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_timeout_kills_the_whole_tree() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let group = Group::new("timeout");
    let files = group.files();
    let options = ExecOptions {
        timeout_ms: 300,
        group: Some([files[0].as_fd(), files[1].as_fd()]),
        ..ExecOptions::default()
    };
    let mut exec = pod.exec(&id, "setsid sleep 1000 & echo begun; sleep 1000", options);
    assert!(matches!(exec.reply, Reply::Running { .. }), "{:?}", exec.reply);
    let exit = pod.exit_of(&exec.target);
    assert_eq!((exit.code, exit.timed_out), (137, true));
    // All who could write have gone: the pipe ends.
    let mut text = String::new();
    exec.streams[0].read_to_string(&mut text).unwrap();
    assert_eq!(text, "begun\n");
    pod.shut_down();
}

#[test]
fn without_a_group_a_timeout_kills_the_process() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let options = ExecOptions { timeout_ms: 100, ..ExecOptions::default() };
    let exec = pod.exec(&id, "exec sleep 1000", options);
    let exit = pod.exit_of(&exec.target);
    assert_eq!((exit.code, exit.timed_out), (137, true));
    pod.shut_down();
}

#[test]
fn a_log_that_hangs_stops_only_the_log() {
    let mut pod = Pod::new();
    // A pipe that nobody reads stands for a disk that hangs.
    let (reader, writer) = corten_kernel::stream::pipe().unwrap();
    let log = Some(File::from(writer));
    let id = pod.run("yes loud", Options { log, ..Options::default() });
    let quiet = pod.run("sleep 1000", Options::default());
    // Execs, signals and ends of the same pod go on.
    for _ in 0..3 {
        let exec = pod.exec(&id, "exit 2", ExecOptions::default());
        assert_eq!(pod.exit_of(&exec.target).code, 2);
    }
    assert_eq!(pod.kill(init(&quiet), 9), Reply::Done);
    assert_eq!(pod.exit_of(&init(&quiet)).code, 137);
    assert_eq!(pod.kill(init(&id), 9), Reply::Done);
    assert_eq!(pod.exit_of(&init(&id)).code, 137);
    drop(reader);
    pod.shut_down();
}

#[test]
fn a_slow_log_loses_nothing() {
    let mut pod = Pod::new();
    let (reader, writer) = corten_kernel::stream::pipe().unwrap();
    let log = Some(File::from(writer));
    let id = pod.run("seq 1 100000", Options { log, ..Options::default() });
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(pod.exit_of(&init(&id)).code, 0);
    pod.delete(init(&id));
    pod.shut_down();
    let text = reader.join().unwrap();
    let numbers = text.lines().map(|line| line.splitn(4, ' ').last().unwrap().to_owned());
    assert!(numbers.eq((1..=100_000).map(|number: u32| number.to_string())));
}

#[test]
fn a_full_disk_is_told_and_the_container_goes_on() {
    let mut pod = Pod::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let id = pod.run(
        "for i in 1 2 3; do echo lost; sleep 0.02; done; exit 4",
        Options { log: Some(full), ..Options::default() },
    );
    let broken = Event::LogBroken { container: id.clone(), errno: 28 };
    pod.client.event(|event| *event == broken);
    assert_eq!(pod.exit_of(&init(&id)).code, 4);
    assert!(!pod.client.events.contains(&broken));
    pod.shut_down();
}

#[test]
fn a_grandchild_that_holds_the_pipe_does_not_hold_the_end() {
    let mut pod = Pod::new();
    // In the host's PID namespace it outlives the container's first process,
    // and becomes the shim's child.
    let script = "(while [ ! -e /dev/shm/go ]; do sleep 0.01; done; echo late) & echo first";
    let id = pod.run(script, Options { host_pid: true, ..Options::default() });
    assert_eq!(pod.exit_of(&init(&id)).code, 0);
    assert_eq!(pod.log_text("log"), ["first"]);
    let other = pod.run(
        "touch /dev/shm/go",
        Options { log: Some(pod.open_log("other")), ..Options::default() },
    );
    assert_eq!(pod.exit_of(&init(&other)).code, 0);
    // What it says later is still written.
    eventually("the late line", || pod.log_text("log") == ["first", "late"]);
    let own = pod.shim.pid();
    eventually("no child but live ones", || {
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        children.trim().is_empty()
    });
    pod.shut_down();
}

#[test]
fn orphans_of_an_exec_belong_to_the_containers_init() {
    let mut pod = Pod::new();
    let id = pod.run("while [ ! -e /dev/shm/go ]; do sleep 0.01; done", Options::default());
    let exec = pod.exec(&id, "setsid sleep 1000 & exit 0", ExecOptions::default());
    // The sleep holds the exec's pipes, and its end is told all the same.
    assert_eq!(pod.exit_of(&exec.target).code, 0);
    pod.exec(&id, "touch /dev/shm/go", ExecOptions::default());
    assert_eq!(pod.exit_of(&init(&id)).code, 0);
    pod.shut_down();
}

#[test]
fn fifty_execs_at_once() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let numbers: Vec<u32> = (0..50)
        .map(|n| {
            let script = format!("echo number {n}; exit {n}");
            pod.client.send_exec(&id, ExecId(1000 + n), &script, ExecOptions::default())
        })
        .collect();
    let mut replies = Vec::new();
    for number in numbers {
        replies.push(pod.client.reply(number));
    }
    for (n, (reply, mut streams)) in (0..).zip(replies) {
        assert!(matches!(reply, Reply::Running { .. }), "{reply:?}");
        let target = Target { container: id.clone(), exec: Some(ExecId(1000 + n as u64)) };
        assert_eq!(pod.exit_of(&target).code, n);
        let mut text = String::new();
        File::from(streams.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("number {n}\n"));
        pod.delete(target);
    }
    pod.shut_down();
}

#[test]
fn nonsense_is_refused_and_nothing_happens() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let mut frame = Request::List.encode(77);
    frame.push(0);
    pod.client.try_send(&frame, &[]).unwrap();
    assert_eq!(pod.client.reply(77).0, Reply::Refused(Refusal::Malformed));
    pod.client.try_send(b"hello", &[]).unwrap();
    assert_eq!(pod.client.reply(0).0, Reply::Refused(Refusal::Malformed));
    let stdio = Stdio { log: true, ..Stdio::default() };
    let other = corten_base::ContainerId::from_random([99; 32]);
    let create = Request::Create { container: other.clone(), stdio, cgroup: CgroupFds::default() };
    assert_eq!(pod.client.call(&create, &[]).0, Reply::Refused(Refusal::Malformed));
    let no_plan = File::open("/proc/self/exe").unwrap();
    let fds = [no_plan.as_fd(), no_plan.as_fd()];
    assert_eq!(pod.client.call(&create, &fds).0, Reply::Refused(Refusal::Malformed));
    let exec = pod.exec(&other, "true", ExecOptions::default());
    assert_eq!(exec.reply, Reply::Refused(Refusal::Unknown));
    let again = Request::Create { container: id.clone(), stdio, cgroup: CgroupFds::default() };
    assert_eq!(pod.client.call(&again, &fds).0, Reply::Refused(Refusal::Exists));
    let delete = Request::Delete { target: init(&id) };
    assert_eq!(
        pod.client.call(&delete, &[]).0,
        Reply::Refused(Refusal::WrongPhase(Phase::Running))
    );
    pod.shut_down();
}

#[test]
fn descriptors_do_not_gather() {
    let mut pod = Pod::new();
    let id = pod.run("sleep 1000", Options::default());
    let count =
        |pod: &Pod| std::fs::read_dir(format!("/proc/{}/fd", pod.shim.pid())).unwrap().count();
    let before = count(&pod);
    for n in 0..20 {
        let options = ExecOptions { stdin: true, terminal: n % 2 == 0, ..ExecOptions::default() };
        let exec = pod.exec(&id, "exit 0", options);
        pod.exit_of(&exec.target);
        pod.delete(exec.target);
        let once = pod.run("echo x", Options::default());
        pod.exit_of(&init(&once));
        pod.delete(init(&once));
    }
    eventually("the same descriptors as before", || count(&pod) == before);
    pod.shut_down();
}
