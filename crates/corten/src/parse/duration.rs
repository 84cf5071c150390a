//! `--since`: how long ago, or from when.

use std::time::Duration;

/// Nanoseconds since 1970 of `10m`, `2h30m`, `90s` (that long before `now_ns`).
pub fn since(text: &str, now_ns: i64) -> Result<i64, String> {
    let ago = duration(text)?;
    let ago = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
    Ok(now_ns.saturating_sub(ago).max(0))
}

/// `1d2h3m4s`, each part once and in this order; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: write it as in 90s, 10m or 2h30m");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut seconds = 0u64;
    for (unit, each) in [('d', 86_400u64), ('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, after)) = rest.split_once(unit) else { continue };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        seconds = seconds.saturating_add(each.saturating_mul(number.into()));
        rest = after;
    }
    if text.is_empty() || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_added_up() {
        let of = |text| duration(text).map(|duration| duration.as_secs());
        for (text, seconds) in
            [("90s", 90), ("10m", 600), ("2h30m", 9000), ("1d", 86_400), ("45", 45)]
        {
            assert_eq!(of(text), Ok(seconds), "{text}");
        }
        for text in ["", "m", "10x", "30m2h", "-5m", "1h-5m", "5m5"] {
            assert!(of(text).is_err(), "{text}");
        }
        assert_eq!(since("1s", 5_000_000_000), Ok(4_000_000_000));
        assert_eq!(since("99d", 5), Ok(0));
    }
}
