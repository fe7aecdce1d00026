//! One connection to the store, as a browser would keep it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::BoxError;

/// An HTTP connection, made anew when it breaks.
pub struct Client {
    address: SocketAddr,
    key: String,
    admin_token: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// `X-Cache`.
    pub cache: String,
    /// The body, as sent.
    pub body: Bytes,
    /// From sending to the last byte.
    pub took: Duration,
}

impl Reply {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    /// A client of the store at this address, with the keys of the seed.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            key: "pk_storefront".to_owned(),
            admin_token: "storefront-admin".to_owned(),
            sender: None,
        }
    }

    /// Uses another publishable key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    /// `GET`.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn get(&mut self, path: &str) -> Result<Reply, BoxError> {
        self.send(Method::GET, path, None, false).await
    }

    /// `GET`, past the cache.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn get_fresh(&mut self, path: &str) -> Result<Reply, BoxError> {
        self.send(Method::GET, path, None, true).await
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Reply, BoxError> {
        self.post_text(path, body.to_string()).await
    }

    /// `POST` of anything that is said to be JSON.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn post_text(&mut self, path: &str, body: String) -> Result<Reply, BoxError> {
        self.send(Method::POST, path, Some(body), false).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
        fresh: bool,
    ) -> Result<Reply, BoxError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header("x-publishable-api-key", &self.key);
        if path.starts_with("/admin/") {
            request = request.header(AUTHORIZATION, format!("Bearer {}", self.admin_token));
        }
        if fresh {
            request = request.header(CACHE_CONTROL, "no-cache");
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let began = Instant::now();
        let sender = self.sender().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let cache = response.headers().get("x-cache");
        let cache = cache
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply {
            status,
            cache,
            body,
            took: began.elapsed(),
        })
    }

    /// The connection, if it still works; else a new one.
    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, BoxError> {
        let kept = match self.sender.take() {
            Some(mut sender) => sender.ready().await.ok().map(|()| sender),
            None => None,
        };
        let sender = match kept {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                // Ends with the connection; the next sender is told of its errors.
                tokio::spawn(connection);
                sender
            }
        };
        Ok(self.sender.insert(sender))
    }
}
