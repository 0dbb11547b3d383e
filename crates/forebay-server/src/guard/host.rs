//! Which names a request may be for. A web page can point a name of its own at this machine and have
//! a browser here send requests under that name (DNS rebinding); it cannot do so under an address,
//! `localhost`, or a name of ours. Nor may a page of another origin send any.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use forebay::config::ServerConfig;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use crate::listen::metrics::Refused;

/// The names of this daemon on TCP.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    allowed: Vec<String>,
    /// Other names are let through: keys or certificates protect a listener that others reach, and
    /// nobody said which names it has.
    any_name: bool,
}

impl Hosts {
    pub(crate) fn new(server: &ServerConfig) -> Self {
        let allowed: Vec<String> =
            server.hosts_allowed.iter().map(|name| name.to_ascii_lowercase()).collect();
        let is_local = server.listen.is_none_or(is_local);
        Self { any_name: !is_local && allowed.is_empty(), allowed }
    }

    /// Checks where a request says that it is for, and which page sent it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
            // HTTP/2 has it in the request line.
            (None, _) => uri.authority().cloned(),
            (Some(_), Some(_)) => None,
        };
        let host: Authority = host.ok_or(Refused::Host)?;
        if !self.is_ours(&host) {
            return Err(Refused::Host);
        }
        for origin in headers.get_all(ORIGIN) {
            let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
            let is_same = origin
                .as_ref()
                .and_then(Uri::authority)
                .is_some_and(|from| from.as_str().eq_ignore_ascii_case(host.as_str()));
            if !is_same {
                return Err(Refused::Origin);
            }
        }
        Ok(())
    }

    fn is_ours(&self, host: &Authority) -> bool {
        let name = host.host().to_ascii_lowercase();
        let bare = name.trim_end_matches('.');
        self.any_name
            || is_address(bare)
            || bare == "localhost"
            || self.allowed.iter().any(|allowed| allowed == bare)
    }
}

fn is_address(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    }
}

/// Whether only this machine reaches the address.
pub(crate) fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(server: &ServerConfig, host: &[&str], origin: Option<&str>) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(HOST, host.parse().expect("a header"));
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header"));
        }
        Hosts::new(server).check(&Uri::from_static("/v1/models"), &headers)
    }

    fn loopback(names: &[&str]) -> ServerConfig {
        ServerConfig {
            listen: "127.0.0.1:80".parse().ok(),
            hosts_allowed: names.iter().map(ToString::to_string).collect(),
            ..ServerConfig::default()
        }
    }

    #[test]
    fn loopback_is_loopback_however_it_is_written() {
        for listen in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            let server = ServerConfig { listen: listen.parse().ok(), ..ServerConfig::default() };
            assert_eq!(check(&server, &["evil.example"], None), Err(Refused::Host), "{listen}");
        }
        let server = ServerConfig { listen: "10.0.0.1:80".parse().ok(), ..ServerConfig::default() };
        assert_eq!(check(&server, &["robot.example"], None), Ok(()), "keys protect it");
    }

    #[test]
    fn names_of_others_are_refused_and_addresses_are_not() {
        let server = loopback(&["Robot-7.local"]);
        for good in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:80", "robot-7.local:1"] {
            assert_eq!(check(&server, &[good], None), Ok(()), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert_eq!(check(&server, &[bad], None), Err(Refused::Host), "{bad}");
        }
        assert_eq!(check(&server, &[], None), Err(Refused::Host));
        assert_eq!(check(&server, &["localhost", "evil.example"], None), Err(Refused::Host));
    }

    #[test]
    fn only_pages_of_the_daemon_may_ask() {
        let server = loopback(&[]);
        let with = |origin| check(&server, &["localhost:80"], Some(origin));
        assert_eq!(with("http://localhost:80"), Ok(()));
        for bad in ["http://evil.example", "http://localhost:3000", "null", "http://localhost"] {
            assert_eq!(with(bad), Err(Refused::Origin), "{bad}");
        }
    }

    #[test]
    fn a_listener_for_others_takes_any_name_until_its_own_are_listed() {
        let open = "0.0.0.0:80".parse().ok();
        let server = ServerConfig { listen: open, ..ServerConfig::default() };
        assert_eq!(check(&server, &["robot.example"], None), Ok(()));
        let server = ServerConfig { listen: open, ..loopback(&["robot.example"]) };
        assert_eq!(check(&server, &["robot.example"], None), Ok(()));
        assert_eq!(check(&server, &["evil.example"], None), Err(Refused::Host));
    }

    #[test]
    fn a_mapped_loopback_address_is_local() {
        assert!(is_local("[::ffff:127.0.0.1]:1".parse().expect("an address")));
        assert!(!is_local("0.0.0.0:1".parse().expect("an address")));
    }
}
