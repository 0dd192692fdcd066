//! TLS: certificates of a server of one's own, and trust in those of others.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use tokio_rustls::rustls::crypto::ring::{default_provider, sign::any_supported_type};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Files of a server's certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its authority behind it.
    pub certificates: PathBuf,
    /// Private key of the certificate.
    pub key: PathBuf,
}

/// TLS of a port, whose certificate can be replaced while it runs.
#[derive(Debug)]
pub(crate) struct ServerTls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().expect("nothing under this lock can panic")))
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Fails with the file and the reason, for people, if they are no certificate and its key.
    pub(crate) fn read(files: TlsFiles) -> Result<Self, String> {
        let current = Arc::new(Current(Mutex::new(Arc::new(read(&files)?))));
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions");
        let certificates = Arc::clone(&current);
        let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, current, config: Arc::new(config) })
    }

    /// Reads the files again; new connections have the new certificate.
    ///
    /// # Errors
    /// As [`Self::read`]; the old certificate stays.
    pub(crate) fn read_again(&self) -> Result<(), String> {
        let new = Arc::new(read(&self.files)?);
        *self.current.0.lock().expect("nothing under this lock can panic") = new;
        Ok(())
    }

    /// Acceptor of connections, by HTTP/2 or HTTP/1.1 as the client wishes.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, String> {
    let TlsFiles { certificates, key } = files;
    let chain = read_certificates(certificates)?;
    let wrong = |path: &Path, why: String| format!("{}: {why}", path.display());
    let read = PrivateKeyDer::from_pem_file(key);
    let read = read.map_err(|error| {
        wrong(key, format!("no private key in PEM, as --tls-key needs: {error}"))
    })?;
    let signer = any_supported_type(&read);
    let signer =
        signer.map_err(|error| wrong(key, format!("this key is not supported: {error}")))?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|_| {
        let other = certificates.display();
        wrong(key, format!("this is not the key of the certificate in {other}"))
    })?;
    Ok(certified)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &str| format!("{}: {why}", path.display());
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    let all = read.map_err(|error| wrong(&format!("no certificate in PEM: {error}")))?;
    if all.is_empty() {
        return Err(wrong("no certificate in PEM is there"));
    }
    Ok(all)
}

/// Trust in other servers: the authorities of this machine, and those of more files in PEM. They
/// are read when the first server is asked by TLS.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    more: Vec<PathBuf>,
    connector: OnceLock<TlsConnectorResult>,
}

type TlsConnectorResult = Result<DebugConnector, String>;

#[derive(Clone)]
struct DebugConnector(TlsConnector);

impl std::fmt::Debug for DebugConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl Trust {
    /// Trust in the authorities of this machine and those of `more`.
    pub(crate) fn new(more: Vec<PathBuf>) -> Self {
        Self { more, connector: OnceLock::new() }
    }

    /// TLS to a server that one of them vouches for.
    ///
    /// # Errors
    /// Fails with the file and the reason, for people, if one has no certificate.
    pub(crate) fn connector(&self) -> Result<TlsConnector, String> {
        let read = || client(&self.more).map(DebugConnector);
        self.connector.get_or_init(read).clone().map(|it| it.0)
    }
}

fn client(more: &[PathBuf]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    // A machine without authorities can still ask servers that have a certificate of `more`.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in more {
        for certificate in read_certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|error: tokio_rustls::rustls::Error| {
                io::Error::other(format!("{}: {error}", path.display())).to_string()
            })?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
