//! TLS of the TCP listener, with or without certificates of clients.

use std::path::Path;
use std::sync::Arc;

use forebay::config::TlsConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::error::ServeError;

/// Reads the files; `None` if TLS is not configured.
///
/// # Errors
/// A file that is missing, cannot be read or does not fit the others.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<Option<TlsAcceptor>, ServeError> {
    let set = |path: &Path| !path.as_os_str().is_empty();
    match (set(&config.certificate), set(&config.key)) {
        (false, false) if !set(&config.client_ca) => return Ok(None),
        (true, true) => {}
        _ => return Err(wrong("tls.certificate and tls.key must both be set, or neither")),
    }
    let chain = certificates(&config.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|error| wrong(format!("{}: {error}", config.key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let builder = if config.asks_clients() {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&config.client_ca)? {
            roots.add(certificate).map_err(wrong)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.map_err(wrong)?)
    } else {
        builder.with_no_client_auth()
    };
    let mut server = builder.with_single_cert(chain, key).map_err(wrong)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let failed = |error| wrong(format!("{}: {error}", path.display()));
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(wrong(format!("{} has no certificate", path.display())));
    }
    Ok(found)
}

fn wrong(reason: impl ToString) -> ServeError {
    ServeError::Tls { reason: reason.to_string() }
}
