//! Credentials print nothing of themselves but the user's name: logs, errors
//! and crash reports are read by many.

use std::fmt;

use crate::corten::RegistryCredentials;
use crate::cri::AuthConfig;

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corten::PullImageRequest;
    use crate::cri;

    #[test]
    fn a_printed_request_holds_no_secret() {
        let auth = AuthConfig {
            username: "me".into(),
            password: "hidden-1".into(),
            auth: "hidden-2".into(),
            server_address: "r.example".into(),
            identity_token: "hidden-3".into(),
            registry_token: "hidden-4".into(),
        };
        let kubelet = cri::PullImageRequest { auth: Some(auth), ..Default::default() };
        let people = PullImageRequest {
            credentials: Some(RegistryCredentials {
                username: "me".into(),
                password: "hidden-5".into(),
            }),
            ..Default::default()
        };
        let text = format!("{kubelet:?} {people:?}");
        assert!(text.contains("me"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
