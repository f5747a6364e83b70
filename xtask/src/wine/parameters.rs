//! Values of a service's `Parameters` key.

use std::fmt::Write as _;
use std::str::FromStr;

/// One value, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// The value's name.
    pub name: String,
    /// Its data.
    pub value: Value,
}

/// Data of a registry value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `REG_SZ`
    Text(String),
    /// `REG_DWORD`
    Number(u32),
    /// `REG_MULTI_SZ`
    Texts(Vec<String>),
}

impl Parameter {
    /// A value by name.
    pub(crate) fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        if name.is_empty() || name.contains('"') {
            return Err("the name of a value must not be empty or hold quotes".to_owned());
        }
        let value = if let Some(number) = value.strip_prefix("dword:") {
            Value::Number(number.parse().map_err(|_| format!("{number:?} is no 32-bit number"))?)
        } else if let Some(list) = value.strip_prefix("multi:") {
            Value::Texts(list.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect())
        } else {
            Value::Text(value.to_owned())
        };
        Ok(Self::new(name, value))
    }
}

/// A `.reg` file that gives a service's `Parameters` key these values and no others, in UTF-16 as `reg
/// import` takes it.
pub(super) fn reg_file(service: &str, parameters: &[Parameter]) -> Vec<u8> {
    let key = key(service);
    let mut text = format!("{HEAD}[-{key}]\r\n\r\n[{key}]\r\n");
    for Parameter { name, value } in parameters {
        // Writing to a string does not fail.
        let _ = write!(text, "\"{}\"={}\r\n", quoted(name), value.in_file());
    }
    in_utf16(&text)
}

/// Does the same for one value, which is removed if `None`; the others stay.
pub(super) fn reg_change(service: &str, name: &str, value: Option<&Value>) -> Vec<u8> {
    let value = value.map_or_else(|| "-".to_owned(), Value::in_file);
    in_utf16(&format!("{HEAD}[{}]\r\n\"{}\"={value}\r\n", key(service), quoted(name)))
}

/// Header of a `.reg` file.
const HEAD: &str = "Windows Registry Editor Version 5.00\r\n\r\n";

fn key(service: &str) -> String {
    format!("HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Services\\{service}\\Parameters")
}

fn in_utf16(text: &str) -> Vec<u8> {
    [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

impl Value {
    fn in_file(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", quoted(text)),
            Self::Number(number) => format!("dword:{number:08x}"),
            Self::Texts(texts) => multi(texts),
        }
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// The bytes of a list of texts: each ends with a zero, and the list with one more.
fn multi(texts: &[String]) -> String {
    let units = texts.iter().flat_map(|text| text.encode_utf16().chain([0])).chain([0]);
    let bytes: Vec<String> = units.flat_map(u16::to_le_bytes).map(|byte| format!("{byte:02x}")).collect();
    format!("hex(7):{}", bytes.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_the_command_line() {
        let read = |text: &str| text.parse::<Parameter>().map(|parameter| parameter.value);
        assert_eq!(read("Listen=127.0.0.1:9"), Ok(Value::Text("127.0.0.1:9".into())));
        assert_eq!(read("Wait=dword:500"), Ok(Value::Number(500)));
        assert_eq!(
            read("Nets=multi:10.0.0.0/8,::1"),
            Ok(Value::Texts(vec!["10.0.0.0/8".into(), "::1".into()]))
        );
        assert_eq!(read("Nets=multi:"), Ok(Value::Texts(vec![])));
        for bad in ["Listen", "=x", "Wait=dword:ten", "a\"b=c"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    fn text(bytes: &[u8]) -> String {
        let units: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        String::from_utf16(&units).unwrap()
    }

    #[test]
    fn a_change_leaves_the_other_values() {
        let set = text(&reg_change("netio", "Completion", Some(&Value::Text("late".into()))));
        assert!(set.contains(
            "[HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Services\\netio\\Parameters]\r\n\
             \"Completion\"=\"late\"\r\n"
        ));
        assert!(!set.contains("[-"));
        assert!(text(&reg_change("netio", "Completion", None)).contains("\"Completion\"=-\r\n"));
    }

    #[test]
    fn a_reg_file_replaces_the_whole_key() {
        let parameters = [
            Parameter::new("Path", Value::Text("a\\b\"c".into())),
            Parameter::new("Wait", Value::Number(255)),
            Parameter::new("Nets", Value::Texts(vec!["x".into()])),
        ];
        let text = text(&reg_file("gate", &parameters));
        assert!(text.starts_with("\u{feff}Windows Registry Editor Version 5.00\r\n"));
        assert!(
            text.contains("[-HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Services\\gate\\Parameters]")
        );
        assert!(text.contains("\"Path\"=\"a\\\\b\\\"c\"\r\n"));
        assert!(text.contains("\"Wait\"=dword:000000ff\r\n"));
        assert!(text.contains("\"Nets\"=hex(7):78,00,00,00,00,00\r\n"));
    }
}
