//! How long a launch takes; run by hand: `cargo test -- --ignored launches`.

use std::time::Instant;

use super::kit::*;
use crate::launch::Step;

#[test]
#[ignore = "measures, asserts nothing"]
fn launches() {
    let image = Image::new();
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let start = Instant::now();
            let outcome = container(&image, &[Step::AwaitStart], "true");
            assert_eq!(outcome.code, 0);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("spawn, container, exec, exit, reap: median {:?}, best {:?}", times[50], times[0]);
}
