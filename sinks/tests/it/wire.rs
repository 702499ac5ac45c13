//! What may lie between a store and its bucket: servers that answer anything, proxies, TLS; and a process with an
//! environment of its own.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_native_tls::{TlsAcceptor, native_tls};

/// A server on the loopback interface; it ends with the test.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// Answers the nth request with the nth answer and closes the connection; the last answer is for all that follow.
    pub(crate) async fn answering(answers: Vec<Vec<u8>>) -> Wire {
        let answers = Arc::new(Mutex::new(answers));
        Wire::start(move |mut stream, heads| {
            let answers = answers.clone();
            async move {
                let (head, body) = request(&mut stream).await?;
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let rest = length.map_or(0, |n| n.parse::<usize>().unwrap()) - body.len();
                stream.read_exact(&mut vec![0; rest]).await?;
                let answer = {
                    let mut answers = answers.lock().unwrap();
                    if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
                };
                heads.lock().unwrap().push(head);
                stream.write_all(&answer).await?;
                stream.shutdown().await
            }
        })
        .await
    }

    /// A proxy as `HTTP_PROXY` and `HTTPS_PROXY` name it, that knows one server.
    pub(crate) async fn proxy(to: SocketAddr) -> Wire {
        Wire::start(move |mut stream, heads| async move {
            let (head, body) = request(&mut stream).await?;
            let mut server = TcpStream::connect(to).await?;
            if head.starts_with("CONNECT ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            } else {
                server.write_all(head.as_bytes()).await?;
                server.write_all(&body).await?;
            }
            heads.lock().unwrap().push(head);
            copy_bidirectional(&mut stream, &mut server).await.map(drop)
        })
        .await
    }

    /// TLS before a server without.
    pub(crate) async fn tls(authority: &Authority, to: SocketAddr) -> Wire {
        let acceptor = TlsAcceptor::from(native_tls::TlsAcceptor::new(authority.identity()).unwrap());
        Wire::start(move |stream, heads| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.map_err(std::io::Error::other)?;
                heads.lock().unwrap().push("TLS".to_owned());
                let mut server = TcpStream::connect(to).await?;
                copy_bidirectional(&mut stream, &mut server).await.map(drop)
            }
        })
        .await
    }

    async fn start<F, Fut>(serve: F) -> Wire
    where
        F: Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> Fut + Send + 'static,
        Fut: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // An error is a client that went away.
                tokio::spawn(serve(stream, seen.clone()));
            }
        });
        Wire { address, heads, task }
    }

    /// The heads of the requests that came; for TLS, one word for each connection.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// The head of a request, and what has come of its body.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            return Ok((String::from_utf8(read).unwrap(), body));
        }
        if stream.read_buf(&mut read).await? == 0 || read.len() > 64 << 10 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// An authority that nobody trusts yet.
pub(crate) struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

impl Authority {
    pub(crate) fn new(named: &str) -> Authority {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut builder = certificate(named, 1, &key);
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder.set_issuer_name(&name(named)).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        Authority { key, certificate: builder.build() }
    }

    /// The certificate, as `ca_file` takes it.
    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// A server's, for 127.0.0.1.
    fn identity(&self) -> native_tls::Identity {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut builder = certificate("server of a test", 2, &key);
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        let address = SubjectAlternativeName::new()
            .ip("127.0.0.1")
            .build(&builder.x509v3_context(Some(&self.certificate), None))
            .unwrap();
        builder.append_extension(address).unwrap();
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build().to_pem().unwrap();
        native_tls::Identity::from_pkcs8(&certificate, &key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }
}

fn name(common: &str) -> openssl::x509::X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", common).unwrap();
    name.build()
}

fn certificate(common: &str, serial: u32, key: &PKey<Private>) -> X509Builder {
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name(common)).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder
}

/// Runs one test again in a process of its own: there the environment is the test's own.
pub(crate) async fn alone(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("AWS_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied());
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{variables:?}: {said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
