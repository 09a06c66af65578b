//! Forms with files, byte by byte.

use crate::client::{Answer, Client};

const BOUNDARY: &str = "----opossum-7MA4YWxkTrZu0gW";

/// A form as it is sent.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<u8>);

impl Form {
    /// A form for a batch's file: the purpose, then the file.
    pub fn batch(content: &[u8]) -> Self {
        Self::default().field("purpose", "batch").file("lines.jsonl", content)
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// Adds the file.
    #[must_use]
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(content);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// The body.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.0, format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }

    /// A client whose bodies are such forms.
    pub fn client(client: Client) -> Client {
        client.with("content-type", &format!("multipart/form-data; boundary={BOUNDARY}"))
    }

    /// Uploads it.
    pub async fn upload(&self, client: &Client) -> Answer {
        Self::client(client.clone()).call("POST", "/v1/files", Some(&self.bytes())).await
    }
}
