//! Keys by which people leave a session: `ctrl-p,ctrl-q`.

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

/// Keys in one sequence.
const KEYS_MAX: usize = 8;

/// Reads keys with commas between them: a character, or `ctrl-` and a letter.
pub fn parse(text: &str) -> Result<Keys, String> {
    let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
    if keys.len() > KEYS_MAX {
        return Err(format!("at most {KEYS_MAX} keys make a sequence"));
    }
    Ok(Keys(keys))
}

fn key(text: &str) -> Result<u8, String> {
    let refused = || {
        format!("{text:?} is no key: give a character, or ctrl- and one of a to z, @ [ \\ ] ^ _")
    };
    let (control, name) = match text.strip_prefix("ctrl-") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let &[byte] = name.as_bytes() else { return Err(refused()) };
    match (control, byte) {
        (false, b' '..=b'~') => Ok(byte),
        (true, b'a'..=b'z') => Ok(byte - b'a' + 1),
        (true, b'@' | b'['..=b'_') => Ok(byte - b'@'),
        _ => Err(refused()),
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub struct Watch {
    keys: Keys,
    /// How many of them have been typed, and are held back.
    typed: usize,
}

impl Watch {
    /// Nothing is typed yet.
    pub fn new(keys: Keys) -> Self {
        Self { keys, typed: 0 }
    }

    /// What goes on, and whether the keys have been typed. What comes after
    /// them goes nowhere.
    pub fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut on = Vec::with_capacity(typed.len() + self.typed);
        for &byte in typed {
            while self.typed > 0 && byte != keys[self.typed] {
                // The held keys were meant for the container, unless a part of
                // them begins the sequence anew.
                let held = self.typed;
                let kept = (1..held)
                    .map(|from| held - from)
                    .find(|kept| keys[..*kept] == keys[held - kept..held]);
                self.typed = kept.unwrap_or(0);
                on.extend_from_slice(&keys[..held - self.typed]);
            }
            if byte == keys[self.typed] {
                self.typed += 1;
                if self.typed == keys.len() {
                    self.typed = 0;
                    return (on, true);
                }
            } else {
                on.push(byte);
            }
        }
        (on, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_people_say_them() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap().0, [16, 17]);
        assert_eq!(parse("a,~,ctrl-],ctrl-@").unwrap().0, [b'a', b'~', 29, 0]);
        for wrong in ["", "ctrl-", "ctrl-P", "ab", "ctrl-p,", "é", "a,b,c,d,e,f,g,h,i"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    fn passed(keys: &str, pieces: &[&str]) -> (String, bool) {
        let mut watch = Watch::new(parse(keys).unwrap());
        let mut all = Vec::new();
        for piece in pieces {
            let (on, left) = watch.pass(piece.as_bytes());
            all.extend(on);
            if left {
                return (String::from_utf8(all).unwrap(), true);
            }
        }
        (String::from_utf8(all).unwrap(), false)
    }

    #[test]
    fn what_is_not_the_keys_goes_on() {
        assert_eq!(passed("x,y", &["abc"]), ("abc".into(), false));
        assert_eq!(passed("x,y", &["axyb"]), ("a".into(), true));
        assert_eq!(passed("x,y", &["ax", "y"]), ("a".into(), true));
        assert_eq!(passed("x,y", &["ax", "b"]), ("axb".into(), false));
        assert_eq!(passed("x,y", &["xxy"]), ("x".into(), true));
        assert_eq!(passed("x,x,y", &["xxxy"]), ("x".into(), true));
        assert_eq!(passed("x,x,y", &["xxz"]), ("xxz".into(), false));
        assert_eq!(passed("a,b,a,c", &["abab", "ac"]), ("ab".into(), true));
    }
}
