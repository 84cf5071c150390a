//! Sizes of memory and numbers of CPUs.

/// Digits behind the point that a number of CPUs may have.
const NANO_DIGITS: usize = 9;

/// Bytes of `128m`, `1.5g`, `512MiB`, `1048576`. Units are powers of 1024, as
/// docker has them.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write it as in 128m, 1.5g or 512MiB");
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 10,
        "m" | "mb" | "mib" | "mi" => 20,
        "g" | "gb" | "gib" | "gi" => 30,
        "t" | "tb" | "tib" | "ti" => 40,
        _ => return Err(wrong()),
    };
    let billionths = billionths(number).ok_or_else(wrong)?;
    let bytes = billionths.checked_shl(shift).map(|bytes| bytes / 1_000_000_000);
    match bytes.map(u64::try_from) {
        Some(Ok(0)) => Err("a size is more than nothing; for no limit leave it out".to_owned()),
        Some(Ok(bytes)) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(format!("{text:?} is more than any machine has")),
    }
}

/// Thousand millionths of a CPU: `1.5` is 1,500,000,000.
pub fn cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of CPUs: write it as in 2, 1.5 or 0.25");
    match billionths(text).map(u64::try_from).ok_or_else(wrong)? {
        Ok(0) => Err("a number of CPUs is more than nothing; for no limit leave it out".to_owned()),
        Ok(nano) => Ok(nano),
        Err(_) => Err(wrong()),
    }
}

/// A decimal number, times 10⁹.
fn billionths(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0
        || whole.len() > 18
        || fraction.len() > NANO_DIGITS
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    format!("{whole}{fraction:0<width$}", width = NANO_DIGITS).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("128m", 128 << 20),
            ("128M", 128 << 20),
            ("128mb", 128 << 20),
            ("512MiB", 512 << 20),
            ("1.5g", 3 << 29),
            ("2Gi", 2 << 30),
            (".5k", 512),
            ("7b", 7),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1m", "1x", "1.2.3g", "1 g", "0", "0.1b", "99999999t", "1e3"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus(".1"), Ok(100_000_000));
        assert_eq!(cpus("0.000000001"), Ok(1));
        for text in ["", ".", "0", "0.0", "-1", "two", "1,5", "1.0000000001", "99999999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }
}
