//! From a request of HTTP to a protocol that both sides know.

use corten_wire::forward::{SPDY_PROTOCOL, TUNNEL_PROTOCOLS};
use corten_wire::remote::{SPDY_PROTOCOLS, SpdyProtocol, WEBSOCKET_PROTOCOLS, WebSocketProtocol};
use corten_wire::websocket::accept_key;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, request};

/// The header by which clients of SPDY offer protocols.
static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The header that tells a client what it could have offered.
static ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// What was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    /// A remote command over SPDY.
    Spdy(SpdyProtocol),
    /// A remote command over WebSocket.
    WebSocket(WebSocketProtocol),
    /// Ports over SPDY.
    Forward,
    /// Ports over SPDY, which travels in messages of WebSocket.
    Tunnel,
    /// Ports over channels of a WebSocket.
    Channels(WebSocketProtocol),
}

/// Why there is no upgrade: a status, and a sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    status: StatusCode,
    reason: String,
    accepted: Vec<&'static str>,
}

impl Refused {
    /// A refusal for this reason.
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), accepted: Vec::new() }
    }

    fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// Nothing that the client offers is spoken here.
    fn no_protocol(accepted: Vec<&'static str>) -> Self {
        let reason =
            format!("unable to upgrade: no protocol in common; accepted: {}", accepted.join(", "));
        Self { accepted, ..Self::new(StatusCode::FORBIDDEN, reason) }
    }

    /// As it is sent.
    pub fn response(self) -> Response<String> {
        let mut response = Response::new(self.reason + "\n");
        *response.status_mut() = self.status;
        for name in self.accepted {
            response.headers_mut().append(&ACCEPTED, http::HeaderValue::from_static(name));
        }
        response
    }
}

/// Agrees on a protocol: it, and the answer.
pub fn agree(
    request: &request::Parts,
    forward: bool,
) -> Result<(Agreed, Response<String>), Refused> {
    let headers = &request.headers;
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err(Refused::bad("unable to upgrade: the header Connection: Upgrade is missing"));
    }
    let upgrades =
        |name: &str| tokens(headers, &UPGRADE).any(|have| have.eq_ignore_ascii_case(name));
    if upgrades("websocket") {
        websocket(request, forward)
    } else if upgrades(SPDY) {
        spdy(headers, forward)
    } else {
        Err(Refused::bad("unable to upgrade: neither SPDY/3.1 nor websocket is asked for"))
    }
}

fn spdy(headers: &HeaderMap, forward: bool) -> Result<(Agreed, Response<String>), Refused> {
    let mut offered = tokens(headers, &PROTOCOL_VERSION).peekable();
    if offered.peek().is_none() {
        return Err(Refused::bad(
            "unable to upgrade: the header X-Stream-Protocol-Version is missing",
        ));
    }
    let known = |name: &str| {
        if forward {
            return (name == SPDY_PROTOCOL).then_some((SPDY_PROTOCOL, Agreed::Forward));
        }
        let protocol = SPDY_PROTOCOLS.into_iter().find(|protocol| protocol.name == name)?;
        Some((protocol.name, Agreed::Spdy(protocol)))
    };
    let Some((name, agreed)) = offered.find_map(known) else {
        return Err(Refused::no_protocol(if forward {
            vec![SPDY_PROTOCOL]
        } else {
            SPDY_PROTOCOLS.map(|protocol| protocol.name).into()
        }));
    };
    let mut response = switching(SPDY);
    let value = http::HeaderValue::from_static(name);
    response.headers_mut().insert(&PROTOCOL_VERSION, value);
    Ok((agreed, response))
}

fn websocket(
    request: &request::Parts,
    forward: bool,
) -> Result<(Agreed, Response<String>), Refused> {
    let headers = &request.headers;
    if request.method != Method::GET {
        return Err(Refused::bad("unable to upgrade: a WebSocket begins with GET"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let reason = "unable to upgrade: Sec-WebSocket-Version is not 13";
        return Err(Refused::new(StatusCode::UPGRADE_REQUIRED, reason));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(Refused::bad("unable to upgrade: the header Sec-WebSocket-Key is missing"));
    };
    // Who offers nothing speaks the oldest.
    let mut offered = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    let silent = offered.peek().is_none().then_some("");
    let known = |name: &str| {
        if let Some(tunnel) = TUNNEL_PROTOCOLS.into_iter().find(|tunnel| forward && *tunnel == name)
        {
            return Some((tunnel, Agreed::Tunnel));
        }
        let protocol = WEBSOCKET_PROTOCOLS.into_iter().find(|protocol| protocol.name == name)?;
        let agreed = if forward { Agreed::Channels(protocol) } else { Agreed::WebSocket(protocol) };
        Some((protocol.name, agreed))
    };
    let Some((name, agreed)) = offered.chain(silent).find_map(known) else {
        let all = WEBSOCKET_PROTOCOLS.into_iter().map(|protocol| protocol.name);
        let all = all.filter(|name| !name.is_empty());
        let tunnels = TUNNEL_PROTOCOLS.into_iter().filter(|_| forward);
        return Err(Refused::no_protocol(tunnels.chain(all).collect()));
    };
    let mut response = switching("websocket");
    let accept = http::HeaderValue::from_str(&accept_key(key.as_bytes()))
        .map_err(|_| Refused::bad("unable to upgrade: no usable Sec-WebSocket-Key"))?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !name.is_empty() {
        let value = http::HeaderValue::from_static(name);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok((agreed, response))
}

fn switching(to: &'static str) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static(to));
    response
}

/// The parts of a header that is a list, over all of its lines.
fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().method("GET");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const SPDY_HEADERS: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
    const WEBSOCKET_HEADERS: [(&str, &str); 4] = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn spdy(offers: &[&str], forward: bool) -> Result<String, StatusCode> {
        let mut headers = SPDY_HEADERS.to_vec();
        headers.extend(offers.iter().map(|offer| ("X-Stream-Protocol-Version", *offer)));
        let (_, response) = agree(&request(&headers), forward).map_err(|refused| refused.status)?;
        Ok(response.headers()[&PROTOCOL_VERSION].to_str().unwrap().to_owned())
    }

    fn websocket(offer: &str, forward: bool) -> Result<Agreed, StatusCode> {
        let mut headers = WEBSOCKET_HEADERS.to_vec();
        headers.push(("Sec-WebSocket-Protocol", offer));
        agree(&request(&headers), forward).map(|agreed| agreed.0).map_err(|refused| refused.status)
    }

    #[test]
    fn the_clients_order_counts() {
        let v4 = "v4.channel.k8s.io";
        assert_eq!(spdy(&["v5.channel.k8s.io", v4, "channel.k8s.io"], false).unwrap(), v4);
        assert_eq!(spdy(&["channel.k8s.io, v4.channel.k8s.io"], false).unwrap(), "channel.k8s.io");
        assert_eq!(spdy(&["portforward.k8s.io"], true).unwrap(), "portforward.k8s.io");
        assert_eq!(spdy(&["v4.channel.k8s.io"], true), Err(StatusCode::FORBIDDEN));
        assert_eq!(spdy(&[], false), Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn websockets_have_sub_protocols() {
        let name = |agreed| match agreed {
            Ok(Agreed::WebSocket(protocol) | Agreed::Channels(protocol)) => protocol.name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name(websocket("v5.channel.k8s.io", false)), "v5.channel.k8s.io");
        assert_eq!(name(websocket("x, base64.channel.k8s.io", false)), "base64.channel.k8s.io");
        assert_eq!(name(websocket("", false)), "");
        assert_eq!(name(websocket("v4.channel.k8s.io", true)), "v4.channel.k8s.io");
        let tunnel = "SPDY/3.1+portforward.k8s.io";
        assert_eq!(websocket(tunnel, true), Ok(Agreed::Tunnel));
        assert_eq!(websocket(tunnel, false), Err(StatusCode::FORBIDDEN));
        let (_, response) = agree(&request(&WEBSOCKET_HEADERS), false).unwrap();
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn other_requests_are_refused() {
        let status = |headers: &[(&str, &str)]| agree(&request(headers), false).unwrap_err().status;
        assert_eq!(status(&[]), StatusCode::BAD_REQUEST);
        assert_eq!(status(&SPDY_HEADERS[1..]), StatusCode::BAD_REQUEST);
        assert_eq!(status(&[SPDY_HEADERS[0], ("Upgrade", "h2c")]), StatusCode::BAD_REQUEST);
        assert_eq!(status(&WEBSOCKET_HEADERS[..2]), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(status(&WEBSOCKET_HEADERS[..3]), StatusCode::BAD_REQUEST);
    }
}
