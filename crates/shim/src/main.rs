//! The program `corten-shim`: the monitor of one pod, started by `cortend`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use corten_kernel::heap::SmallHeap;

#[global_allocator]
static HEAP: SmallHeap = SmallHeap::new();

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match corten_shim::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corten-shim: {error}");
            ExitCode::FAILURE
        }
    }
}
