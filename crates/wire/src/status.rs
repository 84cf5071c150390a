//! How a remote command ended, as the protocols tell it on their error
//! stream: `metav1.Status` since v4, plain text before.

use serde_json::{Value, json};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0, or as far as anybody cares.
    Success,
    /// With another exit code.
    Exited(i32),
    /// Not by itself: the sentence for people.
    Failed(String),
}

impl Outcome {
    /// The outcome of a process that ended with this code.
    pub fn of(code: i32) -> Self {
        if code == 0 { Self::Success } else { Self::Exited(code) }
    }

    /// As JSON (v4 and later).
    pub fn json(&self) -> Vec<u8> {
        let status = |rest: Value| {
            let mut status = json!({ "metadata": {}, "status": "Failure" });
            if let (Value::Object(status), Value::Object(rest)) = (&mut status, rest) {
                status.extend(rest);
            }
            status
        };
        let status = match self {
            Self::Success => status(json!({ "status": "Success" })),
            Self::Exited(code) => status(json!({
                "reason": "NonZeroExitCode",
                "message": self.text(),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            })),
            Self::Failed(_) => status(json!({
                "reason": "InternalError",
                "message": self.text(),
                "code": 500,
            })),
        };
        status.to_string().into_bytes()
    }

    /// As text (before v4); empty for success.
    pub fn text(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Exited(code) => format!("command terminated with exit code {code}"),
            Self::Failed(sentence) => sentence.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_exit_code() {
        let read = |outcome: &Outcome| serde_json::from_slice::<Value>(&outcome.json()).unwrap();
        assert_eq!(read(&Outcome::of(0)), json!({ "metadata": {}, "status": "Success" }));
        let exited = read(&Outcome::of(7));
        assert_eq!(exited["reason"], "NonZeroExitCode");
        assert_eq!(exited["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "7" }));
        let failed = Outcome::Failed("unable to \"x\"".into());
        assert_eq!(read(&failed)["message"], "unable to \"x\"");
        assert_eq!(failed.text(), "unable to \"x\"");
        assert!(Outcome::of(0).text().is_empty());
    }
}
