//! Wrong input by the million: parsers of what outsiders write are shown
//! mutations of right input, and must neither panic nor take long.
//!
//! Nothing here needs a special compiler. Input number `n` depends on the name
//! of the target and on `n` alone, so that what failed can be shown again.

#![forbid(unsafe_code)]

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mutate::Mutator;

/// How long one input may take, on a busy machine and without optimisation.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that reads what outsiders write.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Right input, to be made wrong.
    seeds: fn() -> Vec<Vec<u8>>,
    /// Words that matter to it.
    words: &'static [&'static [u8]],
    /// Bytes that an input has at most.
    length_max: usize,
    /// Reads an input; what it finds out about itself, it asserts.
    read: fn(&[u8]),
}

/// An input that a target does not bear.
#[derive(Debug)]
pub struct Failure {
    /// Which one.
    pub number: u64,
    /// Its bytes.
    pub input: Vec<u8>,
    /// What was said.
    pub message: String,
}

/// All targets.
pub fn targets() -> &'static [Target] {
    targets::ALL
}

impl Target {
    /// Input number `number`.
    pub fn input(&self, number: u64) -> Vec<u8> {
        Mutator::new(self, &(self.seeds)()).input(number)
    }

    /// Shows inputs to the target, until the first that it does not bear.
    pub fn run(&self, numbers: std::ops::Range<u64>) -> Result<(), Box<Failure>> {
        let at = Arc::new(AtomicU64::new(numbers.start));
        let watch = Watch::new(self.name, at.clone());
        let seeds = (self.seeds)();
        let mut mutator = Mutator::new(self, &seeds);
        for number in numbers {
            at.store(number, Ordering::Relaxed);
            let input = mutator.input(number);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.read)(&input))) {
                let text = panic.downcast_ref::<String>().cloned();
                let word = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let message = text.or(word).unwrap_or_default();
                return Err(Box::new(Failure { number, input, message }));
            }
        }
        drop(watch);
        Ok(())
    }
}

/// Ends the process when one input takes for ever: a thread cannot be stopped.
struct Watch {
    done: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn new(name: &'static str, at: Arc<AtomicU64>) -> Self {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut last = u64::MAX;
            while wait.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let now = at.load(Ordering::Relaxed);
                if now == last {
                    eprintln!("fuzz {name}: input {now} takes longer than {PATIENCE:?}");
                    std::process::abort();
                }
                last = now;
            }
        });
        Self { done: Some(done), thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_depends_on_its_number_alone() {
        for target in targets() {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            let mut mutator = Mutator::new(target, &seeds);
            let inputs: Vec<_> = (0..200).map(|number| mutator.input(number)).collect();
            assert_eq!(target.input(150), inputs[150], "{}", target.name);
            let different = inputs.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert!(different > 100, "{}: {different}", target.name);
            assert!(inputs.iter().all(|input| input.len() <= target.length_max));
        }
    }

    #[test]
    fn a_panic_is_told_with_its_input() {
        let read: fn(&[u8]) = |input| assert!(!input.ends_with(b"!"), "an outcry");
        let seeds = || vec![b"a!".to_vec()];
        let target = Target { name: "outcry", seeds, words: &[], length_max: 100, read };
        let failure = target.run(0..1000).unwrap_err();
        assert!(failure.input.ends_with(b"!") && failure.message.contains("an outcry"));
        assert_eq!(target.input(failure.number), failure.input);
    }
}
