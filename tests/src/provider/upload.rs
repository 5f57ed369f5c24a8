//! Dify's `POST /files/upload`: a form with one `file` and the `user`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use multer::Multipart;
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
    content: Bytes,
}

/// The reply, and what the journal keeps of the request.
pub(super) async fn receive(headers: &HeaderMap, body: Bytes) -> (StatusCode, Value, Value) {
    // A body that is no form has no parts.
    let parts = parts(headers, body).await.unwrap_or_default();
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

async fn parts(headers: &HeaderMap, body: Bytes) -> multer::Result<Vec<Part>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let stream = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut form = Multipart::new(stream, multer::parse_boundary(kind)?);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await? {
        parts.push(Part {
            name: field.name().unwrap_or_default().to_owned(),
            filename: field.file_name().filter(|name| !name.is_empty()).map(str::to_owned),
            mime_type: field.content_type().map(ToString::to_string).unwrap_or_default(),
            content: field.bytes().await?,
        });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FILE: &str = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n\
        Content-Type: image/png\r\n\r\n\r\n--b\u{0}\r\n";
    const USER: &str = "--B\r\ncontent-disposition: form-data; name=\"user\"\r\n\r\nu-1\r\n";

    async fn sent(parts: &[&str]) -> (u16, Value, Value) {
        let kind = HeaderValue::from_static("multipart/form-data; boundary=\"B\"");
        let body = format!("{}--B--\r\n", parts.concat());
        let (status, reply, journal) =
            receive(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]), body.into()).await;
        (status.as_u16(), reply, journal)
    }

    #[tokio::test]
    async fn a_file_is_taken() {
        let (status, reply, journal) = sent(&[USER, FILE]).await;
        assert_eq!(status, 201);
        assert_eq!((&reply["name"], &reply["size"], &reply["extension"]), (&json!("a.png"), &json!(6), &json!("png")));
        assert_eq!(reply["mime_type"], "image/png");
        Uuid::parse_str(reply["id"].as_str().unwrap()).unwrap();
        assert_eq!((&journal["user"], &journal["file"]["size"]), (&json!("u-1"), &json!(6)));
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let unnamed = FILE.replace("; filename=\"a.png\"", "");
        for (parts, code) in [
            (&[USER][..], "no_file_uploaded"),
            (&[USER, FILE, FILE], "too_many_files"),
            (&[USER, unnamed.as_str()], "filename_not_exists_error"),
            (&[FILE], "invalid_param"),
        ] {
            let (status, reply, _) = sent(parts).await;
            assert_eq!((status, &reply["code"]), (400, &json!(code)));
        }
        assert_eq!(receive(&HeaderMap::new(), Bytes::from_static(b"{}")).await.1["code"], "no_file_uploaded");
    }
}
