//! A `multipart/form-data` body with a file in it, made in memory.

use std::fmt::Write;

/// A form under construction. The names of fields and files are chatbox's own and contain no quotes.
#[derive(Debug)]
pub(crate) struct Multipart {
    /// The separator of the parts; random, so it occurs in none of them.
    boundary: String,
    body: Vec<u8>,
}

impl Multipart {
    /// An empty form.
    pub(crate) fn new() -> Self {
        Self { boundary: format!("chatbox-{:032x}", rand::random::<u128>()), body: Vec::new() }
    }

    /// Adds a field.
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), None, value.as_bytes())
    }

    /// Adds a file.
    pub(crate) fn file(self, name: &str, file_name: &str, media_type: &str, data: &[u8]) -> Self {
        self.part(&format!("name=\"{name}\"; filename=\"{file_name}\""), Some(media_type), data)
    }

    fn part(mut self, disposition: &str, media_type: Option<&str>, data: &[u8]) -> Self {
        let mut head = format!("--{}\r\nContent-Disposition: form-data; {disposition}\r\n", self.boundary);
        if let Some(media_type) = media_type {
            // Writing to a `String` cannot fail.
            let _written = write!(head, "Content-Type: {media_type}\r\n");
        }
        for piece in [head.as_bytes(), b"\r\n", data, b"\r\n"] {
            self.body.extend_from_slice(piece);
        }
        self
    }

    /// The content type and the body.
    pub(super) fn finish(mut self) -> (String, Vec<u8>) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_as_the_standard_wants_it() {
        let form = Multipart::new().text("user", "u").file("file", "a.png", "image/png", b"\x89\r\n--");
        let boundary = form.boundary.clone();
        let (content_type, body) = form.finish();
        assert_eq!(content_type, format!("multipart/form-data; boundary={boundary}"));
        let mut expected = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu\r\n--{boundary}\r\nContent-Disposition: \
             form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"
        )
        .into_bytes();
        expected.extend_from_slice(b"\x89\r\n--");
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert_eq!(body, expected);
        assert_ne!(Multipart::new().boundary, boundary);
    }
}
