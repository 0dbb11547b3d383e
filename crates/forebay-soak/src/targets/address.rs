//! Where a target is, as it is written on a command line:
//! `library`, `[DIALECT+]http[s]://HOST:PORT`, `[DIALECT+]unix:PATH`, with `native`, `openai`, `tei` or `grpc`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::dialect::Dialect;

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// In this process.
    Library,
    /// A server.
    Server {
        /// What it speaks.
        dialect: Dialect,
        /// How it is reached.
        place: Place,
    },
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
    /// The same with TLS.
    Tls(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library => f.write_str("library"),
            Self::Server { dialect, place } => write!(f, "{dialect}+{place}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "library" {
            return Ok(Self::Library);
        }
        let (dialect, place) = match text.split_once('+') {
            Some((dialect, place)) if !dialect.contains([':', '/']) => (dialect.parse()?, place),
            _ => (Dialect::Native, text),
        };
        let place = if let Some(path) = place.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            (!path.is_empty()).then(|| Place::Unix(path.into()))
        } else if let Some(rest) = place.strip_prefix("http://") {
            host_and_port(rest, 80).map(Place::Tcp)
        } else if let Some(rest) = place.strip_prefix("https://") {
            host_and_port(rest, 443).map(Place::Tls)
        } else {
            None
        };
        let place = place.ok_or_else(|| {
            format!(
                "`{text}` is no target; write library, http://HOST:PORT, https://HOST:PORT or unix:PATH, with \
                 openai+, tei+ or grpc+ before it for those dialects"
            )
        })?;
        Ok(Self::Server { dialect, place })
    }
}

fn host_and_port(text: &str, default_port: u16) -> Option<String> {
    let host = text.trim_end_matches('/');
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    plain.then(|| if has_port { host.to_owned() } else { format!("{host}:{default_port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        let server = |dialect, place| Address::Server { dialect, place };
        let tcp = |text: &str| Place::Tcp(text.to_owned());
        for (text, address) in [
            ("library", Address::Library),
            ("http://[::1]:8080/", server(Dialect::Native, tcp("[::1]:8080"))),
            ("tei+http://host", server(Dialect::Tei, tcp("host:80"))),
            ("grpc+http://host:1", server(Dialect::Grpc, tcp("host:1"))),
            ("openai+unix:/run/a+b", server(Dialect::OpenAi, Place::Unix("/run/a+b".into()))),
            ("https://host", server(Dialect::Native, Place::Tls("host:443".to_owned()))),
            ("unix:/run/a+b", server(Dialect::Native, Place::Unix("/run/a+b".into()))),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        for wrong in [
            "",
            "host:80",
            "ftp://host",
            "https://",
            "x+http://host",
            "unix:",
            "http://a/b",
            "tei+",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
