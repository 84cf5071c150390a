//! What a registry asks for in a 401, got for it: user and password, or a token.

use std::sync::PoisonError;

use corten_base::limits::{
    REGISTRY_ATTEMPTS_MAX, REGISTRY_TOKEN_BYTES_MAX, TOKEN_ANSWER_BYTES_MAX,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::auth::{Auth, Challenge, Secret, basic, bearer, challenge};
use crate::client::failure;
use crate::error::{PullError, PullErrorKind};
use crate::registry::{AGENT, Place, Registry, encode};

/// What a registry wants a token for.
struct Asked<'a> {
    realm: &'a str,
    service: &'a str,
    scope: &'a str,
}

impl Registry {
    fn scope(&self) -> String {
        format!("repository:{}:pull", self.repository)
    }

    /// What a place accepted last, or what came for it.
    pub(crate) fn authorization(&self, place: &Place) -> Option<HeaderValue> {
        let cached = place.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let given =
            || self.auth.as_ref().filter(|_| place.credentials)?.registry_token().map(bearer);
        let secret = cached.get(&self.scope()).cloned().or_else(given)?;
        let mut value = HeaderValue::from_str(secret.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Answers a 401: gets what the registry asks for, in place of what it refused.
    pub(crate) async fn authorize(
        &self,
        place: &Place,
        url: &str,
        response: &Response<Incoming>,
    ) -> Result<(), PullError> {
        let refused = |why: String| {
            PullError::new(PullErrorKind::Unauthorized, format!("unable to fetch {url}: {why}"))
        };
        let asked = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let asked = asked
            .filter_map(|value| challenge(value.to_str().ok()?))
            .max_by_key(|c| matches!(c, Challenge::Bearer { .. }));
        let auth = self.auth.as_ref().filter(|_| place.credentials);
        let secret = match asked {
            None => {
                return Err(refused(
                    "the registry answered 401 and asks for nothing that is known".into(),
                ));
            }
            Some(Challenge::Basic) => {
                let (user, password) = auth.and_then(Auth::user).ok_or_else(|| {
                    refused("the registry wants user and password, and there are none".into())
                })?;
                basic(&user, &password)
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = if scope.is_empty() { self.scope() } else { scope };
                let asked = Asked { realm: &realm, service: &service, scope: &scope };
                let token = self.token(place, &asked, auth).await?;
                bearer(&token)
            }
        };
        let mut known = place.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(self.scope(), secret);
        Ok(())
    }

    /// A token from the registry's authorization server.
    async fn token(
        &self,
        place: &Place,
        asked: &Asked<'_>,
        auth: Option<&Auth>,
    ) -> Result<Secret, PullError> {
        let mut attempt = 1;
        loop {
            match self.token_once(place, asked, auth).await {
                Err(error)
                    if attempt < REGISTRY_ATTEMPTS_MAX
                        && matches!(
                            error.kind,
                            PullErrorKind::Unavailable | PullErrorKind::Timeout
                        ) =>
                {
                    tokio::time::sleep(self.pause(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn token_once(
        &self,
        place: &Place,
        asked: &Asked<'_>,
        auth: Option<&Auth>,
    ) -> Result<Secret, PullError> {
        let Asked { realm, service, scope } = *asked;
        let fail = |kind, why: String| {
            PullError::new(kind, format!("unable to get a token from {realm}: {why}"))
        };
        let user = auth.and_then(Auth::user);
        let identity = auth.and_then(Auth::identity_token);
        // A registry in the clear may have its token server beside it; one
        // behind TLS may not send us into the clear.
        if (user.is_some() || identity.is_some())
            && place.host.base.starts_with("https:")
            && !realm.starts_with("https:")
        {
            return Err(fail(
                PullErrorKind::Unauthorized,
                "credentials are not sent without TLS".into(),
            ));
        }
        let query = format!("service={}&scope={}", encode(service), encode(scope));
        let mut request = Request::builder().header(USER_AGENT, AGENT);
        let body = if let Some(identity) = identity {
            request = request
                .method(Method::POST)
                .uri(realm)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            format!(
                "grant_type=refresh_token&client_id=corten&{query}&refresh_token={}",
                encode(identity.expose())
            )
        } else {
            let mark = if realm.contains('?') { '&' } else { '?' };
            request = request.method(Method::GET).uri(format!("{realm}{mark}{query}"));
            String::new()
        };
        if let (None, Some((user, password))) = (identity, user) {
            request = request.header(AUTHORIZATION, basic(&user, &password).expose());
        }
        let request = request
            .body(Full::from(body))
            .map_err(|_| fail(PullErrorKind::Invalid, "it is no URL".into()))?;
        let response = match tokio::time::timeout(self.stall, place.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let (kind, why) = failure(&error);
                return Err(fail(kind, why));
            }
            Err(_) => {
                return Err(fail(PullErrorKind::Timeout, format!("no answer in {:?}", self.stall)));
            }
        };
        let status = response.status();
        if !status.is_success() {
            let kind = if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                PullErrorKind::Unavailable
            } else {
                PullErrorKind::Unauthorized
            };
            return Err(fail(kind, format!("it answered {status}")));
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let bytes = self.read_body(response, TOKEN_ANSWER_BYTES_MAX).await?;
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        answer
            .and_then(|answer| answer.token.or(answer.access_token))
            .filter(|token| (1..=REGISTRY_TOKEN_BYTES_MAX).contains(&token.len()))
            .map(Secret::new)
            .ok_or_else(|| fail(PullErrorKind::Invalid, "its answer has no usable token".into()))
    }
}
