//! Which methods there are, and which of them answer with a stream.

use std::collections::HashMap;

use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;

/// How a method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// With one message.
    Unary,
    /// With any number of messages, for as long as it wants.
    Streaming,
}

/// The methods of a server by their path, read from file descriptors.
///
/// Only these paths appear in logs: another one is what a caller made up.
#[derive(Debug, Clone, Default)]
pub struct Methods {
    kinds: HashMap<String, MethodKind>,
}

impl Methods {
    /// Reads encoded `google.protobuf.FileDescriptorSet`s.
    ///
    /// # Errors
    /// When one of them is no descriptor set.
    pub fn from_descriptors<'a>(sets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, DecodeError> {
        let mut methods = Self::default();
        for set in sets {
            methods.add(&FileDescriptorSet::decode(set)?);
        }
        Ok(methods)
    }

    fn add(&mut self, set: &FileDescriptorSet) {
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let streams = method.server_streaming() || method.client_streaming();
                    let kind = if streams { MethodKind::Streaming } else { MethodKind::Unary };
                    self.kinds.insert(path, kind);
                }
            }
        }
    }

    /// The paths, without the slash in front.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(|path| path.trim_start_matches('/'))
    }

    /// How the method under `path` answers. A path that is not known counts as unary, so that every bound applies to it.
    #[must_use]
    pub fn kind(&self, path: &str) -> MethodKind {
        self.kinds.get(path).copied().unwrap_or(MethodKind::Unary)
    }

    /// The path as it may be logged: itself when it is known.
    #[must_use]
    pub fn loggable(&self, path: &str) -> &str {
        self.kinds.get_key_value(path).map_or("unknown", |(known, _)| known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_from_unary_methods() {
        let methods = Methods::from_descriptors([crate::proto::DESCRIPTORS]).unwrap();
        assert_eq!(methods.kind("/strongroom.v1.ContextService/PutEntry"), MethodKind::Unary);
        assert_eq!(methods.kind("/strongroom.v1.ContextService/ReadEvents"), MethodKind::Streaming);
        assert_eq!(methods.kind("/strongroom.v1.ContextService/NoSuch"), MethodKind::Unary);
    }

    #[test]
    fn a_path_that_a_caller_made_up_is_not_loggable() {
        let methods = Methods::from_descriptors([crate::proto::DESCRIPTORS]).unwrap();
        let known = "/strongroom.v1.ContextService/PutEntry";
        assert_eq!(methods.loggable(known), known);
        assert_eq!(methods.loggable("/x\nrole=admin"), "unknown");
    }

    #[test]
    fn bytes_that_are_no_descriptors_are_refused() {
        assert!(Methods::from_descriptors([&[0xff_u8, 0xff][..]]).is_err());
    }
}
