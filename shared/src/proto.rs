//! The generated protobuf types and the link service. They stop at the edges: each service converts them in its own
//! `convert` module.

#![expect(missing_docs, reason = "generated; the documentation is in the .proto files")]
#![expect(clippy::allow_attributes, clippy::large_enum_variant, reason = "generated as prost and tonic see fit")]

tonic::include_proto!("chatbox.v1");

/// The version of the link's frames this build speaks. A brain refuses a gateway with another one.
pub const LINK_VERSION: u32 = 1;
