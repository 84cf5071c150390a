//! A little of `cargo xtask fuzz` in every run of the tests.

use corten_fuzz::targets;

/// Inputs for each target; the targets run side by side.
const RUNS: u64 = 20_000;

#[test]
fn wrong_input_does_no_harm() {
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads = targets().iter().map(|target| {
            let run = || target.run(0..RUNS);
            (target.name, std::thread::Builder::new().spawn_scoped(scope, run).unwrap())
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .filter_map(|(name, thread)| {
                let failure = thread.join().unwrap().err()?;
                let input = failure.input.escape_ascii();
                Some(format!("{name} ={}: {}\n{input}", failure.number, failure.message))
            })
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
