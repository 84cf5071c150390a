//! Signals: CRI numbers them in its own way, the kernel in another, and people
//! write their names.

use corten_api::cri::Signal;
use corten_pods::Result;

use crate::validate::refuse;

/// Names without `SIG`, numbers that the kernel gives them (the same on all
/// architectures that we build for), and CRI's names of them. Where CRI has
/// two names for one number the first one here is used on the way back.
const TABLE: &[(&str, i32, Signal)] = &[
    ("HUP", 1, Signal::Sighup),
    ("INT", 2, Signal::Sigint),
    ("QUIT", 3, Signal::Sigquit),
    ("ILL", 4, Signal::Sigill),
    ("TRAP", 5, Signal::Sigtrap),
    ("ABRT", 6, Signal::Sigabrt),
    ("IOT", 6, Signal::Sigiot),
    ("BUS", 7, Signal::Sigbus),
    ("FPE", 8, Signal::Sigfpe),
    ("KILL", 9, Signal::Sigkill),
    ("USR1", 10, Signal::Sigusr1),
    ("SEGV", 11, Signal::Sigsegv),
    ("USR2", 12, Signal::Sigusr2),
    ("PIPE", 13, Signal::Sigpipe),
    ("ALRM", 14, Signal::Sigalrm),
    ("TERM", 15, Signal::Sigterm),
    ("STKFLT", 16, Signal::Sigstkflt),
    ("CHLD", 17, Signal::Sigchld),
    ("CLD", 17, Signal::Sigcld),
    ("CONT", 18, Signal::Sigcont),
    ("STOP", 19, Signal::Sigstop),
    ("TSTP", 20, Signal::Sigtstp),
    ("TTIN", 21, Signal::Sigttin),
    ("TTOU", 22, Signal::Sigttou),
    ("URG", 23, Signal::Sigurg),
    ("XCPU", 24, Signal::Sigxcpu),
    ("XFSZ", 25, Signal::Sigxfsz),
    ("VTALRM", 26, Signal::Sigvtalrm),
    ("PROF", 27, Signal::Sigprof),
    ("WINCH", 28, Signal::Sigwinch),
    ("IO", 29, Signal::Sigio),
    ("POLL", 29, Signal::Sigpoll),
    ("PWR", 30, Signal::Sigpwr),
    ("SYS", 31, Signal::Sigsys),
];

/// The first real-time signal as C libraries count them (two are theirs).
const RTMIN: i32 = 34;
/// The last real-time signal.
const RTMAX: i32 = 64;

/// The kernel's number of a CRI signal; 0 for «what the image says».
pub fn from_cri(field: &str, value: i32) -> Result<i32> {
    let signal = Signal::try_from(value)
        .map_err(|_| refuse(field, format!("{value} is no signal of CRI")))?;
    if signal == Signal::RuntimeDefault {
        return Ok(0);
    }
    if let Some((_, number, _)) = TABLE.iter().find(|(_, _, other)| *other == signal) {
        return Ok(*number);
    }
    // What is left are the real-time ones, which CRI counts without a gap.
    Ok(value - Signal::Sigrtmin as i32 + RTMIN)
}

/// The CRI signal of a kernel's number; the default for what CRI cannot name.
pub fn to_cri(number: i32) -> Signal {
    if let Some((_, _, signal)) = TABLE.iter().find(|(_, other, _)| *other == number) {
        return *signal;
    }
    if !(RTMIN..=RTMAX).contains(&number) {
        return Signal::RuntimeDefault;
    }
    Signal::try_from(number - RTMIN + Signal::Sigrtmin as i32).unwrap_or(Signal::RuntimeDefault)
}

/// The kernel's number of what people write: `TERM`, `SIGTERM`, `15`, `RTMIN+3`.
pub fn from_text(field: &str, text: &str) -> Result<i32> {
    let unknown =
        || refuse(field, format!("{text:?} is no signal: write TERM, SIGTERM or 15, for instance"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number, _)) = TABLE.iter().find(|(other, _, _)| *other == name) {
        return Ok(*number);
    }
    let offset = |rest: &str| if rest.is_empty() { Ok(0) } else { rest.parse::<i32>() };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest).map(|offset| RTMIN.saturating_add(offset))
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest).map(|offset| RTMAX.saturating_add(offset))
    } else {
        return Err(unknown());
    };
    number.ok().filter(|number| (RTMIN..=RTMAX).contains(number)).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cri_signal_goes_there_and_back() {
        for value in 1..=Signal::Sigrtmax as i32 {
            let signal = Signal::try_from(value).unwrap();
            let number = from_cri("stop_signal", value).unwrap();
            assert!((1..=64).contains(&number), "{signal:?} is {number}");
            let back = to_cri(number);
            let alias = matches!(signal, Signal::Sigiot | Signal::Sigcld | Signal::Sigpoll);
            assert!(back == signal || alias, "{signal:?} became {back:?}");
        }
        assert_eq!(from_cri("s", Signal::Sigrtminplus15 as i32).unwrap(), 49);
        assert_eq!(from_cri("s", Signal::Sigrtmaxminus14 as i32).unwrap(), 50);
        assert_eq!(from_cri("s", Signal::Sigrtmax as i32).unwrap(), 64);
        assert_eq!(from_cri("s", 0).unwrap(), 0);
        assert!(from_cri("s", 66).is_err());
    }

    #[test]
    fn people_write_signals_in_many_ways() {
        for (text, number) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("rtmin", 34),
            ("CLD", 17),
        ] {
            assert_eq!(from_text("signal", text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "-1", "TERMINATE", "RTMIN+31", "RTMAX+1", "RTMIN99999999999"] {
            assert!(from_text("signal", text).is_err(), "{text}");
        }
    }
}
