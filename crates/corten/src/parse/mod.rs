//! What people write for ports, volumes, sizes and the like, taken apart.
//!
//! Each gives a whole sentence where it cannot: clap puts the flag before it.

pub mod duration;
pub mod environment;
pub mod forward;
pub mod keys;
pub mod number;
pub mod port;
pub mod volume;

/// `key=value` of a label; the value may be empty or left out.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("a label is key=value".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_have_keys() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(super::label("a=b=c"), pair("a", "b=c"));
        assert_eq!(super::label("a"), pair("a", ""));
        assert!(super::label("=b").is_err());
    }
}
