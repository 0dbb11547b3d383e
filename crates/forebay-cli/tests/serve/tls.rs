//! TLS on TCP, with and without certificates of clients.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::{Connection, tcp};
use super::daemon::Daemon;
use crate::support::certificates::certificates;
use crate::support::eventually;

fn connect(address: &str, folder: &Path, with_certificate: bool) -> Connection {
    let read = |name: &str| CertificateDer::from_pem_file(folder.join(name)).expect("reads");
    let mut roots = RootCertStore::empty();
    roots.add(read("ca.pem")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = if with_certificate {
        let key = PrivateKeyDer::from_pem_file(folder.join("client.key")).expect("reads");
        builder.with_client_auth_cert(vec![read("client.pem")], key).expect("fits")
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    Connection::over(StreamOwned::new(client, tcp(address).expect("connects")))
}

fn settings(folder: &Path, more: &str) -> String {
    let folder = folder.display();
    format!("[tls]\ncertificate = '{folder}/server.pem'\nkey = '{folder}/server.key'\n{more}")
}

#[test]
fn what_is_asked_over_tls_is_answered_and_what_is_not_tls_is_not() {
    let folder = tempfile::tempdir().expect("temporary folder");
    certificates(folder.path());
    let daemon = Daemon::start_tcp(&settings(folder.path(), "handshake_ms = 300"));
    let address = daemon.tcp_address();
    let mut connection = connect(&address, folder.path(), false);
    assert_eq!(connection.embed("w1").expect("answers").status, 200);
    let mut plain = Connection::tcp(&address).expect("connects");
    plain.get("/livez").expect_err("it is not TLS");
    // Who only connects is not kept.
    Connection::tcp(&address).expect("connects").until_closed();
    let refused = |reason| daemon.metric("forebay_connections_refused_total", reason);
    eventually("counted", || (refused("\"tls\"") >= 1.0).then_some(()));
    eventually("counted", || (refused("\"tls_time\"") >= 1.0).then_some(()));
    drop((connection, plain));
    daemon.stop();
}

#[test]
fn who_has_no_certificate_is_not_let_in_where_one_is_asked_for() {
    let folder = tempfile::tempdir().expect("temporary folder");
    certificates(folder.path());
    let more = format!("client_ca = '{}/ca.pem'", folder.path().display());
    let daemon = Daemon::start_tcp(&settings(folder.path(), &more));
    let address = daemon.tcp_address();
    let mut connection = connect(&address, folder.path(), true);
    assert_eq!(connection.embed("w1").expect("answers").status, 200);
    connect(&address, folder.path(), false).get("/livez").expect_err("it has no certificate");
    drop(connection);
    daemon.stop();
}
