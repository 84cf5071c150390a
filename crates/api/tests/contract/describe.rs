//! A descriptor as text: one line for each thing that matters on the wire or
//! to those who print messages. Comments, JSON names and the options of other
//! languages do not.

use std::collections::BTreeSet;
use std::fmt::Write;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};

/// The bytes of the only file of a set.
pub fn only_file(set: &[u8]) -> Vec<u8> {
    /// A set whose files stay as they are.
    #[derive(Clone, PartialEq, Message)]
    struct RawSet {
        #[prost(bytes = "vec", repeated, tag = "1")]
        files: Vec<Vec<u8>>,
    }
    let mut files = RawSet::decode(set).expect("a FileDescriptorSet").files;
    assert_eq!(files.len(), 1, "the contract is one file without imports");
    files.remove(0)
}

/// Describes a serialised FileDescriptorProto.
pub fn describe(descriptor: &[u8]) -> String {
    let file = FileDescriptorProto::decode(descriptor).expect("a FileDescriptorProto");
    let secrets = redacted(descriptor);
    let mut text = String::new();
    let out = &mut text;
    line(out, format_args!("syntax {}", file.syntax()));
    line(out, format_args!("package {}", file.package()));
    assert!(file.dependency.is_empty() && file.extension.is_empty());
    for service in &file.service {
        describe_service(out, service);
    }
    for each in &file.enum_type {
        describe_enum(out, "", each);
    }
    for message in &file.message_type {
        describe_message(out, "", message, &secrets);
    }
    text
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

fn describe_service(out: &mut String, service: &ServiceDescriptorProto) {
    for method in &service.method {
        let stream = |yes| if yes { "stream " } else { "" };
        line(
            out,
            format_args!(
                "service {} {}: {}{} -> {}{}",
                service.name(),
                method.name(),
                stream(method.client_streaming()),
                short(method.input_type()),
                stream(method.server_streaming()),
                short(method.output_type()),
            ),
        );
    }
}

fn describe_enum(out: &mut String, within: &str, each: &EnumDescriptorProto) {
    let name = format!("{within}{}", each.name());
    for value in &each.value {
        line(out, format_args!("enum {name} {} {}", value.number(), value.name()));
    }
    for range in &each.reserved_range {
        line(out, format_args!("enum {name} reserved {} to {}", range.start(), range.end()));
    }
    for reserved in &each.reserved_name {
        line(out, format_args!("enum {name} reserved {reserved}"));
    }
}

fn describe_message(
    out: &mut String,
    within: &str,
    message: &DescriptorProto,
    secrets: &BTreeSet<(String, String)>,
) {
    let name = format!("{within}{}", message.name());
    let map = message.options.as_ref().is_some_and(|options| options.map_entry());
    line(out, format_args!("{} {name}", if map { "map entry" } else { "message" }));
    for field in &message.field {
        let secret = secrets.contains(&(name.clone(), field.name().to_owned()));
        describe_field(out, &name, message, field, secret);
    }
    for range in &message.reserved_range {
        // The end of a message's range is the first number beyond it.
        let last = range.end() - 1;
        line(out, format_args!("message {name} reserved {} to {last}", range.start()));
    }
    for reserved in &message.reserved_name {
        line(out, format_args!("message {name} reserved {reserved}"));
    }
    assert!(message.extension.is_empty() && message.extension_range.is_empty());
    let within = format!("{name}.");
    for each in &message.enum_type {
        describe_enum(out, &within, each);
    }
    for nested in &message.nested_type {
        describe_message(out, &within, nested, secrets);
    }
}

fn describe_field(
    out: &mut String,
    name: &str,
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    secret: bool,
) {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let label = match field.label() {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.proto3_optional() => "optional ",
        Label::Optional => "",
    };
    let oneof = match field.oneof_index {
        Some(index) if !field.proto3_optional() => {
            format!(" oneof {}", message.oneof_decl[index as usize].name())
        }
        Some(_) | None => String::new(),
    };
    let options = field.options.as_ref();
    let deprecated = options.is_some_and(|options| options.deprecated());
    let packed = options.and_then(|options| options.packed);
    line(
        out,
        format_args!(
            "message {name} {} {}: {label}{kind}{oneof}{}{}{}",
            field.number(),
            field.name(),
            if deprecated { " deprecated" } else { "" },
            if secret { " redacted" } else { "" },
            packed.map(|packed| format!(" packed={packed}")).unwrap_or_default(),
        ),
    );
}

fn short(type_name: &str) -> &str {
    type_name.strip_prefix(".runtime.v1.").unwrap_or(type_name)
}

/// Message and field of what is `debug_redact`: `prost-types` does not know
/// the option, so its number is read here.
fn redacted(descriptor: &[u8]) -> BTreeSet<(String, String)> {
    #[derive(Clone, PartialEq, Message)]
    struct File {
        #[prost(message, repeated, tag = "4")]
        messages: Vec<Entry>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Entry {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        fields: Vec<Field>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Field {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "8")]
        options: Option<Options>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Options {
        #[prost(bool, tag = "16")]
        debug_redact: bool,
    }
    let file = File::decode(descriptor).expect("a FileDescriptorProto");
    let mut found = BTreeSet::new();
    for message in &file.messages {
        for field in &message.fields {
            if field.options.as_ref().is_some_and(|options| options.debug_redact) {
                found.insert((message.name.clone(), field.name.clone()));
            }
        }
    }
    found
}
