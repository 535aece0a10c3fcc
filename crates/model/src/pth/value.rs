//! What a pickle of tensors can hold, and the functions that stand for data in it.

use candle_core::DType;

/// A value's place in [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(u32);

impl Id {
    /// The place `index`, where an id can say it.
    pub fn at(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a pickle can hold here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Function(Function),
    Storage(StorageRef),
    Tensor(TensorRef),
    /// Plain data whose content nobody needs; what it is, for messages.
    Plain(&'static str),
    /// A class or function outside the closed list, `module.name`. It is never looked up.
    Foreign(String),
    /// What Python would make with the foreign class or function of this id. Nothing is made of it here.
    Opaque(Id),
}

/// The callables that stand for data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch.Size`
    Size,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(Element),
}

/// Type of a storage's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Of(DType),
    /// One byte, 0 or 1.
    Bool,
}

impl Element {
    /// The type that candle reads it as.
    pub fn dtype(self) -> DType {
        match self {
            Self::Of(dtype) => dtype,
            Self::Bool => DType::U8,
        }
    }
}

/// A storage that the pickle speaks of; its bytes lie elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorageRef {
    /// A text.
    pub key: Id,
    pub element: Element,
    /// Elements.
    pub len: usize,
}

/// A storage whose elements are not read. No tensor is made of it, but its bytes stand among the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnreadStorage {
    /// A text.
    pub key: Id,
    /// A foreign name.
    pub class: Id,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef {
    pub storage: StorageRef,
    /// All in elements.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// A pickle that was read.
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    unread: Vec<UnreadStorage>,
    /// Bytes that it took.
    pub len: usize,
}

impl Pickle {
    /// `values` with the ids that its reader gave out, `root` among them.
    pub fn new(values: Vec<Value>, root: Id, unread: Vec<UnreadStorage>, len: usize) -> Self {
        Self { values, root, unread, len }
    }

    /// The value that the pickle is of.
    pub fn root(&self) -> &Value {
        self.get(self.root)
    }

    /// A value inside.
    pub fn get(&self, id: Id) -> &Value {
        // Ids are given out by the reader alone, and values are never taken out.
        &self.values[id.index()]
    }

    /// Every storage that it speaks of: its key, and the bytes of one element where its type is known.
    pub fn storages(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        let read =
            self.values.iter().filter_map(|v| if let Value::Storage(storage) = v { Some(storage) } else { None });
        let read = read.map(|s| (s.key, Some(s.element.dtype().size_in_bytes())));
        let unread = self.unread.iter().map(|s| {
            let size = if let Value::Foreign(class) = self.get(s.class) { unread_size(class) } else { None };
            (s.key, size)
        });
        read.chain(unread).map(|(key, size)| (self.text(key).unwrap_or(""), size))
    }

    /// [`Self::describe`] of the value that the pickle is of.
    pub fn describe_root(&self) -> String {
        self.describe(self.root)
    }

    /// What the value is, for messages: a foreign name is spelled out.
    pub fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Value::Foreign(name) => format!("`{name}`"),
            Value::Opaque(class) => match self.get(*class) {
                Value::Foreign(name) => format!("an object of `{name}`"),
                other => other.kind().to_owned(),
            },
            other => other.kind().to_owned(),
        }
    }

    /// A value that is text.
    pub fn text(&self, id: Id) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }
}

impl Value {
    /// For messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an integer",
            Self::Text(_) => "a text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Function(_) => "a function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Plain(kind) => kind,
            Self::Foreign(_) => "a foreign name",
            Self::Opaque(_) => "a foreign object",
        }
    }
}

/// The closed list of names. Whatever is not in it stays a name.
pub(super) fn function(module: &str, name: &str) -> Option<Function> {
    let storage = |dtype| Some(Function::Storage(Element::Of(dtype)));
    match (module, name) {
        ("collections", "OrderedDict") => Some(Function::OrderedDict),
        ("torch", "Size") => Some(Function::Size),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Function::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Function::RebuildParameter),
        ("torch", "FloatStorage") => storage(DType::F32),
        ("torch", "DoubleStorage") => storage(DType::F64),
        ("torch", "HalfStorage") => storage(DType::F16),
        ("torch", "BFloat16Storage") => storage(DType::BF16),
        ("torch", "LongStorage") => storage(DType::I64),
        ("torch", "IntStorage") => storage(DType::I32),
        ("torch", "ShortStorage") => storage(DType::I16),
        ("torch", "ByteStorage") => storage(DType::U8),
        ("torch", "BoolStorage") => Some(Function::Storage(Element::Bool)),
        _ => None,
    }
}

/// The bytes of one element of a storage class that is not read.
fn unread_size(class: &str) -> Option<usize> {
    match class.strip_prefix("torch.")? {
        "CharStorage" | "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => Some(1),
        // Its lengths are bytes, whatever the tensors over it are.
        "UntypedStorage" | "storage.UntypedStorage" => Some(1),
        "QInt32Storage" => Some(4),
        "ComplexFloatStorage" => Some(8),
        "ComplexDoubleStorage" => Some(16),
        _ => None,
    }
}
