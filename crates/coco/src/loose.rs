//! JSON values as tools write them: `1`, `1.0` and `"1"` are one number, and an entry of another type is no reason to refuse a file.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::text_file::{decode, utf16_without_mark};

/// A number, a text, or something else.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Loose {
    /// Absent or null.
    #[default]
    None,
    Whole(u64),
    Number(f64),
    Bool(bool),
    Text(Box<str>),
    /// A list or an object.
    Other,
}

impl Loose {
    /// The number that it is or spells.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(value) => Some(*value as f64),
            Self::Number(value) => Some(*value),
            Self::Text(text) => text.trim().parse().ok(),
            Self::None | Self::Bool(_) | Self::Other => None,
        }
        .filter(|value: &f64| value.is_finite())
    }

    /// The whole number from 0 that it is or spells.
    pub fn whole(&self) -> Option<u64> {
        let of = |value: f64| (value >= 0.0 && value < 2f64.powi(64) && value.fract() == 0.0).then_some(value as u64);
        match self {
            Self::Whole(value) => Some(*value),
            Self::Number(value) => of(*value),
            Self::Text(text) => text.trim().parse().ok().or_else(|| text.trim().parse().ok().and_then(of)),
            Self::None | Self::Bool(_) | Self::Other => None,
        }
    }

    /// A number of pixels above 0, rounded where a tool wrote `640.0`.
    pub fn pixels(&self) -> Option<u32> {
        self.number().map(f64::round).filter(|v| *v >= 1.0 && *v <= f64::from(u32::MAX)).map(|v| v as u32)
    }

    /// The text that it is, or a number as text: `1.0` is `1`.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.to_string()),
            Self::Whole(value) => Some(value.to_string()),
            Self::Number(value) => Some(value.to_string()),
            Self::Bool(value) => Some(value.to_string()),
            Self::None | Self::Other => None,
        }
    }

    /// A flag as tools write it: 0 or 1, `"0"`, `true`, null; `None` for anything else.
    pub fn flag(&self) -> Option<bool> {
        match (self, self.number()) {
            (Self::None, _) => Some(false),
            (Self::Bool(value), _) => Some(*value),
            (Self::Text(text), _) if text.eq_ignore_ascii_case("false") => Some(false),
            (Self::Text(text), _) if text.eq_ignore_ascii_case("true") => Some(true),
            (_, Some(0.0)) => Some(false),
            (_, Some(1.0)) => Some(true),
            _ => None,
        }
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Whole(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Loose, E> {
        Ok(Loose::Number(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Loose, E> {
        Ok(Loose::None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

/// Reads a whole number that may be written `1.0` or `"1"`.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Loose::deserialize(deserializer)?;
    value.whole().ok_or_else(|| de::Error::custom(format!("expected a whole number from 0, found {value:?}")))
}

/// An entry of a list: an object with the fields of `T`, or `None` where it is something else.
#[derive(Debug)]
pub(crate) struct Entry<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntryVisitor<T> {
            type Value = Entry<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| Entry(Some(value)))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Entry<T>, E> {
                Ok(Entry(None))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Entry<T>, E> {
                Ok(Entry(None))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Entry<T>, E> {
                Ok(Entry(None))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Entry<T>, E> {
                Ok(Entry(None))
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Entry<T>, E> {
                Ok(Entry(None))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Entry<T>, E> {
                Ok(Entry(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry<T>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entry(None))
            }
        }
        deserializer.deserialize_any(EntryVisitor(std::marker::PhantomData))
    }
}

/// The four numbers of a `bbox`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum BoxNumbers {
    /// Absent, null or an empty list.
    #[default]
    Missing,
    /// As they stand; NaN where one is null or no number.
    Four([f64; 4]),
    /// A list of another length, or no list.
    Odd,
}

impl<'de> Deserialize<'de> for BoxNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoxVisitor;
        impl<'de> Visitor<'de> for BoxVisitor {
            type Value = BoxNumbers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of four numbers")
            }
            fn visit_unit<E: de::Error>(self) -> Result<BoxNumbers, E> {
                Ok(BoxNumbers::Missing)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BoxNumbers, E> {
                Ok(if text.is_empty() { BoxNumbers::Missing } else { BoxNumbers::Odd })
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<BoxNumbers, E> {
                Ok(BoxNumbers::Odd)
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<BoxNumbers, E> {
                Ok(BoxNumbers::Odd)
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<BoxNumbers, E> {
                Ok(BoxNumbers::Odd)
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<BoxNumbers, E> {
                Ok(BoxNumbers::Odd)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BoxNumbers, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(BoxNumbers::Odd)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BoxNumbers, A::Error> {
                let (mut numbers, mut count) = ([f64::NAN; 4], 0);
                while let Some(value) = seq.next_element::<Loose>()? {
                    if let Some(number) = numbers.get_mut(count) {
                        *number = value.number().unwrap_or(f64::NAN);
                    }
                    count += 1;
                }
                Ok(match count {
                    0 => BoxNumbers::Missing,
                    4 => BoxNumbers::Four(numbers),
                    _ => BoxNumbers::Odd,
                })
            }
        }
        deserializer.deserialize_any(BoxVisitor)
    }
}

/// JSON without what strict readers refuse and Python writes: a byte order mark, UTF-16, and the words NaN, Infinity and -Infinity,
/// which become null.
pub(crate) fn plain_json(bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, length)) if encoding == encoding_rs::UTF_8 => bytes[length..].into(),
        None if utf16_without_mark(bytes).is_none() => bytes.into(),
        _ => decode(bytes, None).into_owned().into_bytes().into(),
    }
}

/// The bytes with NaN and infinities outside of texts made null.
pub(crate) fn without_nan(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut in_text) = (0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if in_text {
            let length = if rest[0] == b'\\' { 2.min(rest.len()) } else { 1 };
            in_text = rest[0] != b'"';
            out.extend_from_slice(&rest[..length]);
            at += length;
        } else if let Some(word) = ["NaN", "-Infinity", "Infinity"].iter().find(|w| rest.starts_with(w.as_bytes())) {
            out.extend_from_slice(b"null");
            at += word.len();
        } else {
            in_text = rest[0] == b'"';
            out.push(rest[0]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Loose {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn one_number_in_three_spellings() {
        for text in ["7", "7.0", "\"7\"", "\"7.0\"", "\" 7 \""] {
            let value = read(text);
            assert_eq!((value.whole(), value.number(), value.pixels()), (Some(7), Some(7.0), Some(7)), "{text}");
        }
        for text in ["-1", "1.5", "\"x\"", "null", "[1]", "{\"a\": 1}", "true"] {
            assert_eq!(read(text).whole(), None, "{text}");
        }
        assert_eq!(read("18446744073709551615").whole(), Some(u64::MAX));
        assert_eq!(read("1.0").text().as_deref(), Some("1"));
        let flags = ["null", "0", "0.0", "false", "\"0\"", "1", "true"].map(|t| read(t).flag());
        assert_eq!(flags, [Some(false), Some(false), Some(false), Some(false), Some(false), Some(true), Some(true)]);
        assert_eq!(read("2").flag(), None);
    }

    #[test]
    fn boxes_and_what_is_none() {
        let read = |text: &str| serde_json::from_str::<BoxNumbers>(text).unwrap();
        assert_eq!(read("[1, \"2\", 3.5, 4]"), BoxNumbers::Four([1.0, 2.0, 3.5, 4.0]));
        assert!(matches!(read("[1, null, 3, 4]"), BoxNumbers::Four([_, b, _, _]) if b.is_nan()));
        assert_eq!((read("null"), read("[]")), (BoxNumbers::Missing, BoxNumbers::Missing));
        for text in ["[1, 2, 3]", "[1, 2, 3, 4, 5]", "7", "\"1 2 3 4\"", "{\"x\": [1]}", "true"] {
            assert_eq!(read(text), BoxNumbers::Odd, "{text}");
        }
    }

    #[test]
    fn words_that_are_no_json() {
        let fixed = without_nan(br#"{"NaN \" Infinity": [NaN, -Infinity, Infinity, 1]}"#);
        assert_eq!(String::from_utf8(fixed).unwrap(), r#"{"NaN \" Infinity": [null, null, null, 1]}"#);
        assert_eq!(&*plain_json(b"\xEF\xBB\xBF[]"), b"[]");
        assert_eq!(&*plain_json(b"\xFF\xFE[\0]\0"), b"[]");
        assert_eq!(&*plain_json(b"\0[\0]"), b"[]");
    }
}
