//! Dify's `POST /files/upload`: a form with one `file` and the `user`.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::dialect::Dialect;
use super::fault::Fault;

/// One part of a form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part {
    name: String,
    filename: Option<String>,
    mime_type: String,
    content: Vec<u8>,
}

/// The reply, and what the journal keeps of the request.
pub(super) fn receive(headers: &HeaderMap, body: &[u8]) -> (StatusCode, Value, Value) {
    let parts = boundary(headers).map(|boundary| parts(body, &boundary)).unwrap_or_default();
    let user = parts.iter().find(|part| part.name == "user").map(|part| String::from_utf8_lossy(&part.content));
    let files: Vec<&Part> = parts.iter().filter(|part| part.name == "file").collect();
    let seen: Vec<Value> = files.iter().map(|file| file.described()).collect();
    let journal = json!({"user": user, "file": seen.first(), "files": files.len()});
    let (code, message) = match files[..] {
        [] => ("no_file_uploaded", "Please upload your file."),
        [_, _, ..] => ("too_many_files", "Only one file is allowed."),
        [Part { filename: None, .. }] => ("filename_not_exists_error", "The specified filename does not exist."),
        [_] if user.as_ref().is_none_or(|user| user.is_empty()) => {
            ("invalid_param", "Missing required parameter: user")
        }
        [file] => {
            let mut reply = file.described();
            if let Some(reply) = reply.as_object_mut() {
                reply.insert("id".to_owned(), json!(Uuid::new_v4()));
                reply.insert("created_by".to_owned(), json!(Uuid::new_v4()));
                reply.insert("created_at".to_owned(), json!(1_790_000_000));
            }
            return (StatusCode::CREATED, reply, journal);
        }
    };
    let fault = Fault { message: Some(message.to_owned()), ..Fault::of(400, "", code) };
    (StatusCode::BAD_REQUEST, Dialect::Dify.fault(&fault), journal)
}

impl Part {
    fn described(&self) -> Value {
        let name = self.filename.as_deref().unwrap_or_default();
        let extension = name.rsplit_once('.').map(|(_, extension)| extension).unwrap_or_default();
        json!({"name": name, "size": self.content.len(), "extension": extension, "mime_type": self.mime_type})
    }
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (media, rest) = kind.split_once(';')?;
    let boundary = rest.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    (media.trim() == "multipart/form-data").then(|| boundary.trim_matches('"').to_owned())
}

fn parts(body: &[u8], boundary: &str) -> Vec<Part> {
    let delimiter = format!("\r\n--{boundary}");
    // The first has no line end before it.
    let body = [b"\r\n", body].concat();
    let mut parts = Vec::new();
    let Some(mut begin) = find(&body, delimiter.as_bytes()) else { return parts };
    while let Some(rest) = body.get(begin + delimiter.len()..) {
        let Some(length) = find(rest, delimiter.as_bytes()) else { break };
        parts.extend(rest.strip_prefix(b"\r\n").and_then(|_| part(&rest[2..length])));
        begin += delimiter.len() + length;
    }
    parts
}

fn part(bytes: &[u8]) -> Option<Part> {
    let end = find(bytes, b"\r\n\r\n")?;
    let mut part = Part { content: bytes[end + 4..].to_vec(), ..Part::default() };
    for line in String::from_utf8_lossy(&bytes[..end]).lines() {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-type") {
            part.mime_type = value.trim().to_owned();
        } else if name.eq_ignore_ascii_case("content-disposition") {
            for parameter in value.split(';') {
                match parameter.trim().split_once('=') {
                    Some(("name", value)) => part.name = value.trim_matches('"').to_owned(),
                    Some(("filename", value)) => part.filename = Some(value.trim_matches('"').to_owned()),
                    _ => {}
                }
            }
        }
    }
    part.filename = part.filename.filter(|name| !name.is_empty());
    Some(part)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FILE: &str = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\
        Content-Type: image/png\r\n\r\n\r\n--b\u{0}\r\n";
    const USER: &str = "--B\r\ncontent-disposition: form-data; name=\"user\"\r\n\r\nu-1\r\n";

    fn sent(parts: &[&str]) -> (u16, Value, Value) {
        let kind = HeaderValue::from_static("multipart/form-data; boundary=\"B\"");
        let body = format!("{}--B--\r\n", parts.concat());
        let (status, reply, journal) = receive(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]), body.as_bytes());
        (status.as_u16(), reply, journal)
    }

    #[test]
    fn a_file_is_taken() {
        let (status, reply, journal) = sent(&[USER, FILE]);
        assert_eq!(status, 201);
        assert_eq!((&reply["name"], &reply["size"], &reply["extension"]), (&json!("a.png"), &json!(6), &json!("png")));
        assert_eq!(reply["mime_type"], "image/png");
        Uuid::parse_str(reply["id"].as_str().unwrap()).unwrap();
        assert_eq!((&journal["user"], &journal["file"]["size"]), (&json!("u-1"), &json!(6)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let unnamed = FILE.replace("; filename=\"a.png\"", "");
        for (parts, code) in [
            (&[USER][..], "no_file_uploaded"),
            (&[USER, FILE, FILE], "too_many_files"),
            (&[USER, unnamed.as_str()], "filename_not_exists_error"),
            (&[FILE], "invalid_param"),
        ] {
            let (status, reply, _) = sent(parts);
            assert_eq!((status, &reply["code"]), (400, &json!(code)));
        }
        assert_eq!(receive(&HeaderMap::new(), b"{}").1["code"], "no_file_uploaded");
    }
}
