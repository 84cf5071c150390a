//! `cargo xtask fuzz`: shows wrong input to what reads it.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use corten_fuzz::{Target, targets};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, runs] = arguments.as_slice() else {
        eprintln!("usage: corten-fuzz TARGET|all RUNS|=NUMBER\ntargets:");
        for target in targets() {
            eprintln!("  {}", target.name);
        }
        return ExitCode::FAILURE;
    };
    let (first, count) = match runs.strip_prefix('=') {
        Some(number) => (number.parse(), Ok(1)),
        None => (Ok(0), runs.parse()),
    };
    let (Ok(first), Ok(count)) = (first, count) else {
        eprintln!("{runs:?} is neither a count of inputs nor =NUMBER");
        return ExitCode::FAILURE;
    };
    let chosen: Vec<&Target> =
        targets().iter().filter(|target| name == "all" || target.name == name).collect();
    if chosen.is_empty() {
        eprintln!("there is no target {name:?}");
        return ExitCode::FAILURE;
    }
    // A panic is told below, with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = false;
    for target in chosen {
        failed |= !run(target, first..first.saturating_add(count));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(target: &Target, numbers: std::ops::Range<u64>) -> bool {
    let start = Instant::now();
    let count = numbers.end - numbers.start;
    match target.run(numbers) {
        Ok(()) => {
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "{:<10} {count} inputs, none was too much for it ({seconds:.0} s)",
                target.name
            );
            true
        }
        Err(failure) => {
            println!(
                "{:<10} FAILED at input {}: {}\n  {}\n  again: cargo xtask fuzz {} ={}",
                target.name,
                failure.number,
                failure.message,
                failure.input.escape_ascii(),
                target.name,
                failure.number
            );
            false
        }
    }
}
