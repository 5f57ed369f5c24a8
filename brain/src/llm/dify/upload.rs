//! Uploads the images of a question: Dify accepts no image within a chat request.

use http::HeaderMap;

use super::wire::{DifyError, Uploaded};
use super::{AppClient, refused};
use crate::llm::http::{HttpReply, Multipart};
use crate::llm::stream::json;
use crate::llm::{ErrorClass, Image, ProviderError};

impl AppClient {
    /// Uploads an image, the `index`th of its question, and returns its id at Dify. `user` must be the user who asks:
    /// no other may use the file.
    pub(super) async fn upload(
        &self,
        headers: HeaderMap,
        image: &Image,
        index: usize,
        user: &str,
    ) -> Result<String, ProviderError> {
        let name = format!("image-{}.{}", index + 1, extension(&image.media_type));
        let form = Multipart::new().text("user", user).file("file", &name, &image.media_type, &image.data);
        match self.transport.upload(&self.upload_url, headers, form).await? {
            HttpReply::Whole(body) => Ok(json::<Uploaded>(&body)?.id),
            HttpReply::Error(reply) => Err(refused(&reply, DifyError::find(&reply))),
            HttpReply::Stream(_) => Err(ProviderError::new(ErrorClass::Protocol, "the reply to an upload is not JSON")),
        }
    }
}

/// The file name extension, by which Dify recognises the type.
fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/png" => "png",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => "jpg",
    }
}
