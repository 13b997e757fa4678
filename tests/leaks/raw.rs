//! Calls as bytes, so that a field can hold what no client would put there.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto};
use strongroom::proto::DESCRIPTORS;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tower::util::BoxCloneSyncService;

use crate::support::Raw;

/// What carries calls.
pub type Wire =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, tower::BoxError>;

/// Calls a method; all messages of its answer.
///
/// # Errors
/// The status that it ended with.
pub async fn call(wire: &Wire, path: &str, request: Request<Bytes>) -> Result<Vec<Bytes>, Status> {
    let mut grpc = Grpc::new(wire.clone()).max_decoding_message_size(64 << 20);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse::<http::uri::PathAndQuery>().unwrap();
    let mut messages = grpc.server_streaming(request, path, Raw).await?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.push(message);
    }
    Ok(all)
}

/// The protocol, as its descriptors have it.
pub struct Protocol {
    messages: BTreeMap<String, DescriptorProto>,
    /// By its path, each method of both services.
    pub methods: BTreeMap<String, MethodDescriptorProto>,
}

/// A field of a request that holds text or bytes: the numbers that lead to it, and their names.
#[derive(Debug, Clone)]
pub struct Field {
    numbers: Vec<u32>,
    pub name: String,
    pub is_bytes: bool,
}

impl Protocol {
    pub fn read() -> Self {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let (mut messages, mut methods) = (BTreeMap::new(), BTreeMap::new());
        for file in &files {
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                collect(&package, message, &mut messages);
            }
            for service in file.service.iter().filter(|_| file.package() == "strongroom.v1") {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    methods.insert(path, method.clone());
                }
            }
        }
        Self { messages, methods }
    }

    /// All fields of a method's request that hold text or bytes, however deep.
    pub fn fields(&self, method: &str) -> Vec<Field> {
        let mut fields = Vec::new();
        let root = Field { numbers: Vec::new(), name: String::new(), is_bytes: false };
        self.walk(self.methods[method].input_type(), &root, &mut fields);
        fields
    }

    fn walk(&self, message: &str, above: &Field, fields: &mut Vec<Field>) {
        for field in &self.messages[message].field {
            let below = above.below(field);
            match field.r#type() {
                Type::String | Type::Bytes => fields.push(below),
                Type::Message => self.walk(field.type_name(), &below, fields),
                _ => {}
            }
        }
    }
}

fn collect(scope: &str, message: &DescriptorProto, messages: &mut BTreeMap<String, DescriptorProto>) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|nested| collect(&name, nested, messages));
    messages.insert(name, message.clone());
}

impl Field {
    fn below(&self, field: &FieldDescriptorProto) -> Self {
        let numbers = self.numbers.iter().copied().chain([u32::try_from(field.number()).unwrap()]).collect();
        let name = if self.name.is_empty() {
            field.name().to_owned()
        } else {
            format!("{}.{}", self.name, field.name())
        };
        Self { numbers, name, is_bytes: field.r#type() == Type::Bytes }
    }

    /// `message` with this field set: in protobuf the last occurrence of a field wins, messages are merged, and elements are added.
    pub fn set(&self, message: &[u8], value: &str) -> Bytes {
        const LENGTH_DELIMITED: u32 = 2;
        let mut encoded = value.as_bytes().to_vec();
        for number in self.numbers.iter().rev() {
            let mut field = Vec::new();
            prost::encoding::encode_varint(u64::from(number << 3 | LENGTH_DELIMITED), &mut field);
            prost::encoding::encode_varint(encoded.len() as u64, &mut field);
            field.extend_from_slice(&encoded);
            encoded = field;
        }
        [message, &encoded].concat().into()
    }
}
