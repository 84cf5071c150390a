//! Corten at work: one pod's life over CRI, on a machine of its own, with
//! everything removed at the end. `cargo xtask demo` builds and runs it.
#![forbid(unsafe_code)]

mod pod;
mod show;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use corten_tests::machine::Settings;
use corten_tests::{Daemon, Machine};
use tokio::signal::unix::{SignalKind, signal};

use crate::show::Show;

fn main() -> ExitCode {
    let mut outcome = Ok(());
    let begun = Instant::now();
    let mut show = Show::new();
    show.say("\nCorten: a pod's whole life, on a machine of its own.");
    show.say("It has its own network namespace, directory and cgroup; yours stays as it is.");
    let settings = Settings { builtin_network: true, ..Settings::default() };
    let shown = &mut show;
    let result = &mut outcome;
    Machine::run_with(settings, async move |machine, daemon| {
        *result = until_interrupted(shown, machine, daemon).await;
    });
    match outcome {
        Ok(()) => {
            show.result(&format!(
                "nothing is left of it: no mount, process, cgroup, namespace, address or file \
                 ({:.1} s in all)",
                begun.elapsed().as_secs_f64()
            ));
            what_next(&show);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("corten-demo: {error:#} (everything is removed again)");
            ExitCode::FAILURE
        }
    }
}

/// The demo, or what of it there is until somebody presses Ctrl-C. The caller
/// removes what it made.
async fn until_interrupted(show: &mut Show, machine: &Machine, daemon: &mut Daemon) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = pod::life(show, machine, daemon) => outcome,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    if outcome.is_err() {
        // The daemon heard the interrupt as well, and left its pods running.
        daemon.restart().await;
    }
    outcome
}

fn what_next(show: &Show) {
    show.say(
        "
What to try next:
   make build install                        cortend, corten, the shim, the systemd unit
   systemctl enable --now cortend            or `cortend` in a terminal
   corten doctor                             is anything missing here?
   corten run -d --name web -p 8080:80 nginx
   corten logs web; corten exec web nginx -v; corten rm -f web
   make test                                 everything that must hold
README.md tells how to put Corten under a kubelet.",
    );
}
