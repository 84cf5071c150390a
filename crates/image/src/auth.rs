//! Credentials, and what a registry asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// A password or token. It has no `Debug` and no `Display`, so that it cannot
/// get into a log or an error.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes it from the client's message.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Credentials of a pull: the fields of CRI's `AuthConfig`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
    /// base64 of `user:password`; used if there is no user name.
    pub auth: Secret,
    /// Which registry they are for; empty for the one of the image.
    pub server_address: String,
    /// An OAuth2 refresh token.
    pub identity_token: Secret,
    /// A bearer token, sent as it is.
    pub registry_token: Secret,
}

impl Auth {
    /// User and password, or None if there are none.
    pub(crate) fn user(&self) -> Option<(String, Secret)> {
        if !self.username.is_empty() {
            return Some((self.username.clone(), self.password.clone()));
        }
        let decoded = STANDARD.decode(self.auth.expose().trim_end_matches('\0')).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.trim_end_matches('\0').split_once(':')?;
        (!user.is_empty()).then(|| (user.to_owned(), Secret::new(password)))
    }

    pub(crate) fn identity_token(&self) -> Option<&Secret> {
        (!self.identity_token.is_empty()).then_some(&self.identity_token)
    }

    pub(crate) fn registry_token(&self) -> Option<&Secret> {
        (!self.registry_token.is_empty()).then_some(&self.registry_token)
    }

    /// Whether these are for `registry` (host and port).
    pub(crate) fn is_for(&self, registry: &str) -> bool {
        let address = self.server_address.as_str();
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = address.split('/').next().unwrap_or_default();
        let hub = ["docker.io", "index.docker.io", "registry-1.docker.io"];
        host.is_empty() || host == registry || (hub.contains(&host) && hub.contains(&registry))
    }

    /// Tells pulls with different credentials apart.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [
            &self.username,
            &self.password.0,
            &self.auth.0,
            &self.server_address,
            &self.identity_token.0,
            &self.registry_token.0,
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

/// The value of an `Authorization` header for user and password.
pub(crate) fn basic(user: &str, password: &Secret) -> Secret {
    Secret(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose()))))
}

/// The value of an `Authorization` header for a token.
pub(crate) fn bearer(token: &Secret) -> Secret {
    Secret(format!("Bearer {}", token.expose()))
}

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

/// Reads one `WWW-Authenticate` header.
pub(crate) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
    for (key, value) in parameters(rest) {
        match key.to_ascii_lowercase().as_str() {
            "realm" => realm = value,
            "service" => service = value,
            "scope" => scope = value,
            _ => {}
        }
    }
    (!realm.is_empty()).then_some(Challenge::Bearer { realm, service, scope })
}

/// `key="value",key=value`, where a quoted value may hold commas and escapes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((key, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut end = after.len();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut escaped = false;
            for (at, c) in quoted.char_indices() {
                match c {
                    _ if escaped => {
                        value.push(c);
                        escaped = false;
                    }
                    '\\' => escaped = true,
                    '"' => {
                        end = at + 2;
                        break;
                    }
                    _ => value.push(c),
                }
            }
        } else {
            end = after.find(',').unwrap_or(after.len());
            value = after[..end].trim().to_owned();
        }
        all.push((key.trim().to_owned(), value));
        rest = after[end..].trim_start_matches([' ', ',']);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_with_commas_in_its_scope() {
        let header = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#;
        assert_eq!(
            challenge(header),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: "r.example".into(),
                scope: "repository:a/b:pull,push".into(),
            })
        );
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("Negotiate"), None);
        assert_eq!(
            challenge("Bearer realm=\"unterminated"),
            challenge("Bearer realm=unterminated")
        );
    }

    #[test]
    fn credentials_go_to_their_own_registry_only() {
        let auth = Auth { server_address: "https://index.docker.io/v1/".into(), ..Auth::default() };
        assert!(auth.is_for("docker.io"));
        assert!(!auth.is_for("evil.example"));
        assert!(Auth::default().is_for("anything:5000"));
    }

    #[test]
    fn the_auth_field_is_user_and_password() {
        let auth = Auth { auth: Secret::new(STANDARD.encode("me:pass:word")), ..Auth::default() };
        let (user, password) = auth.user().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("me", "pass:word"));
    }
}
