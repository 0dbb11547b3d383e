//! TLS to a server whose certificate a file of authorities vouches for.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::SoakError;

/// How connections are secured.
pub(super) struct Tls {
    name: ServerName<'static>,
    config: ClientConfig,
}

impl Tls {
    /// For a server at `HOST:PORT`, trusted if one of the authorities in a PEM file has signed for it.
    ///
    /// # Errors
    /// There is no file, it holds no authority, or the host cannot be in a certificate.
    pub(super) fn to(address: &str, authorities: Option<&Path>) -> Result<Self, SoakError> {
        let wrong = |what: String| SoakError::Usage(what);
        let path = authorities.ok_or_else(|| {
            wrong(
                "https:// needs the certificates of who vouches for the server; use --ca FILE"
                    .to_owned(),
            )
        })?;
        let failed = |error: &dyn std::fmt::Display| wrong(format!("{}: {error}", path.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        if roots.is_empty() {
            return Err(failed(&"there is no certificate in it"));
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| wrong(format!("`{host}` cannot be in a certificate: {error}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { name, config })
    }

    /// A connection on which this protocol is spoken.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        protocol: &[u8],
    ) -> Result<TlsStream<TcpStream>, String> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(self.name.clone(), stream).await.map_err(|error| error.to_string())
    }
}
