//! People at a terminal: `corten run -it`, `exec -it`, `attach`.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use corten_tests::terminal::Terminal;
use corten_tests::tool::{Tool, text};
use corten_tests::{Machine, until};

/// Runs a command with this input.
fn fed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // Nobody may be there to read it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    output
}

#[test]
fn a_shell_of_ones_own() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let run = ["run", "-q", "--rm", "-it", "--name", "mine", &image, "sh"];
        let mut terminal = Terminal::start(&corten.command(&run), 31, 47);
        terminal.shows("# ").await;
        terminal.types("stty size; tty; echo $((6 * 7))\n");
        terminal.shows("31 47\r\n/dev/pts/0\r\n42\r\n").await;
        terminal.resize(33, 59);
        until("the new size is seen", async || {
            terminal.types("stty size\n");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            terminal.shown().contains("33 59").then_some(())
        })
        .await;
        // Ctrl-C is for who runs inside.
        terminal.types("sleep 1000; echo after\n");
        terminal.shows("after\r\n").await;
        until("the sleep runs", async || {
            corten.run(&["exec", "mine", "ps"]).contains("sleep 1000").then_some(())
        })
        .await;
        terminal.types("\x03");
        terminal.shows("# ").await;
        terminal.types("exit 9\n");
        assert_eq!(terminal.exit_code().await, Some(9));
        assert_eq!(corten.run(&["ps", "-aq"]), "");
    });
}

#[test]
fn a_terminal_is_left_and_come_back_to() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let script = "while read x; do echo got $x; done; exit 4";
        let run = ["run", "-q", "-it", "--name", "mine", &image, "sh", "-c", script];
        let mut terminal = Terminal::start(&corten.command(&run), 24, 80);
        until("it runs", async || corten.run(&["ps"]).contains("mine").then_some(())).await;
        terminal.types("one\n");
        terminal.shows("got one\r\n").await;
        terminal.types("\x10\x11");
        assert_eq!(terminal.exit_code().await, Some(0));
        assert!(terminal.shown().contains("corten attach mine"), "{}", terminal.shown());

        let attach = ["attach", "--detach-keys", "ctrl-x", "mine"];
        let mut again = Terminal::start(&corten.command(&attach), 24, 80);
        again.types("two\n");
        again.shows("got two\r\n").await;
        again.types("\x18");
        assert_eq!(again.exit_code().await, Some(0));

        // A terminal outlives the daemon that serves it.
        let mut third = Terminal::start(&corten.command(&["attach", "mine"]), 24, 80);
        third.types("three\n");
        third.shows("got three\r\n").await;
        daemon.restart().await;
        assert_eq!(third.exit_code().await, Some(125), "{}", third.shown());
        let mut last = Terminal::start(&corten.command(&["attach", "mine"]), 24, 80);
        last.types("four\n");
        last.shows("got four\r\n").await;
        last.types("\x04");
        assert_eq!(last.exit_code().await, Some(4));
        corten.run(&["rm", "mine"]);
        corten.run(&["rmi", &image]);
    });
}

#[test]
fn the_foreground_comes_back_with_the_daemon() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        let script = "while read x; do echo got $x; done; exit 4";
        let run = ["run", "-q", "--rm", "-it", "--name", "mine", &image, "sh", "-c", script];
        let mut terminal = Terminal::start(&corten.command(&run), 24, 80);
        until("it runs", async || corten.run(&["ps"]).contains("mine").then_some(())).await;
        terminal.types("one\n");
        terminal.shows("got one\r\n").await;
        daemon.kill();
        terminal.shows("we wait for the daemon").await;
        daemon.start_again().await;
        terminal.types("two\n");
        terminal.shows("got two\r\n").await;
        terminal.types("\x04");
        assert_eq!(terminal.exit_code().await, Some(4));
        corten.run(&["rmi", &image]);
    });
}

#[test]
fn commands_with_input_and_terminals() {
    Machine::run(async |machine, daemon| {
        let corten = Tool::corten(machine, daemon);
        let image = machine.image("busybox");
        // As much as pipes, messages and the shim do not hold.
        let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let run = ["run", "-q", "--rm", "-i", "--name", "filter", &image, "sh", "-c"];
        let sum = fed(corten.command(&[&run[..], &["md5sum; exit 3"]].concat()), &big);
        assert_eq!(sum.status.code(), Some(3), "{}", text(&sum.stderr));
        let echoed =
            fed(corten.command(&[&run[..], &["tr a-y b-z >&2; echo end"]].concat()), b"halo");
        assert_eq!((text(&echoed.stderr), text(&echoed.stdout)), ("ibmp".into(), "end".into()));

        corten.run(&["run", "-d", "--name", "idle", &image, "sleep", "1000"]);
        let again = fed(corten.command(&["exec", "-i", "idle", "md5sum"]), &big);
        assert_eq!(text(&again.stdout), text(&sum.stdout));
        let back = fed(corten.command(&["exec", "-i", "idle", "cat"]), &big);
        assert!(back.stdout == big, "{} of {} came back", back.stdout.len(), big.len());
        // Without -i there is no input.
        let nothing = fed(corten.command(&["exec", "idle", "cat"]), b"word");
        assert_eq!(text(&nothing.stdout), "");

        let exec = ["exec", "-it", "idle", "sh", "-c", "stty size; read x; stty size; exit $x"];
        let mut terminal = Terminal::start(&corten.command(&exec), 20, 61);
        terminal.shows("20 61\r\n").await;
        terminal.types("7\n");
        assert_eq!(terminal.exit_code().await, Some(7));
        let mut left = Terminal::start(&corten.command(&["exec", "-it", "idle", "sh"]), 20, 61);
        left.shows("# ").await;
        left.types("\x10\x11");
        assert_eq!(left.exit_code().await, Some(0));
        let refused = corten.fails(&["exec", "-it", "idle", "sh"]);
        assert!(refused.contains("no terminal"), "{refused}");
        corten.run(&["rm", "-f", "idle"]);
        assert!(corten.fails(&["attach", "idle"]).contains("no container"));
        corten.run(&["rmi", &image]);
    });
}
