//! `cargo xtask <command>`: the table of commands.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use xtask::{bench, build, conformance, demo, fuzz, kubelet, setup, test, tidy, vm};

/// A command: its name, what it does, and its function.
type Command = (&'static str, &'static str, fn(&[String]) -> anyhow::Result<()>);

const COMMANDS: &[Command] = &[
    ("bench", "Corten and its peers, side by side [--quick] [--publish] [--help]", bench::main),
    ("build", "build cortend, corten and the static shim into target/dist [--dev]", build::main),
    (
        "conformance",
        "critest [--websocket] [--handler NAME] [--seed N] [--parallel N] [--focus RE]",
        conformance::main,
    ),
    ("demo", "see Corten at work, on a bare Debian machine", demo::main),
    ("fuzz", "show wrong input to what reads it [TARGET|all] [RUNS|=NUMBER]", fuzz::main),
    ("kubelet", "a real kubelet keeps pods on Corten [TEST]", kubelet::main),
    ("setup", "install what the tests need, as far as it is missing", setup::main),
    ("test", "everything that must hold before a commit [--no-vm]", test::main),
    ("tidy", "check the rules of the house that no compiler checks", tidy::main),
    ("vm", "run a command under a cgroup v2 kernel [--file HOST:GUEST]… [-- COMMAND]", vm::main),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("help", String::as_str);
    let Some((_, _, command)) = COMMANDS.iter().find(|(known, ..)| *known == name) else {
        eprintln!("cargo xtask <command>\n");
        for (name, purpose, _) in COMMANDS {
            eprintln!("  {name:<11} {purpose}");
        }
        return if name == "help" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    match command(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
