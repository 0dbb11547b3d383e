//! Certificates for tests of TLS.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

/// An authority (`ca.pem`) with a certificate for a server at `localhost` (`server.pem`, `server.key`) and
/// one for a client, as files of this folder.
pub(crate) fn certificates(folder: &Path) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let issuer = issuer.expect("signs");
        std::fs::write(folder.join(format!("{name}.pem")), issuer.pem()).expect("writes");
        issuer
    };
    let ca = authority("ca");
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &ca).expect("signs");
        let write = |end: &str, text: String| {
            std::fs::write(folder.join(format!("{name}.{end}")), text).expect("writes");
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }
}
