//! Python's pickle, read as data: nothing is run.
//!
//! A pickle is a program for a small stack machine. The dangerous part of it, calling any function by its name, is replaced by
//! the closed list [`Function`] of what `torch.save` writes for tensors. Every other name stays a name ([`Value::Foreign`]), and a
//! call of one gives a [`Value::Opaque`]: nothing is imported, called or built. An optimizer, a scheduler or a namespace of
//! arguments is read over in this way; whoever needs a tensor and finds an opaque value refuses it. Opcodes that only writers
//! older than protocol 2 use are errors.
//!
//! Values lie in one list and speak of each other by index: a file that nests a million tuples, or puts a list into itself,
//! costs no stack and no more than a few dozen bytes for each of its own.

use super::value::{Function, Id, Pickle, StorageRef, TensorRef, UnreadStorage, Value, function};

/// The most dimensions a tensor may have.
const MAX_RANK: usize = 16;
/// The newest protocol. `torch.save` writes 2 by itself, Python's own `pickle.dump` 4 or 5.
const NEWEST: u8 = 5;

/// Reads the pickle that `bytes` starts with.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, String> {
    let (values, stack, marks, memo, unread) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut machine = Machine { bytes, at: 0, values, stack, marks, memo, unread, copied: 0 };
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Pickle::new(machine.values, root, machine.unread, machine.at));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where a MARK stands.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    unread: Vec<UnreadStorage>,
    /// Entries and bytes that were copied from one value into another.
    copied: usize,
}

type Outcome<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Outcome<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return Err(format!("the pickle ends at byte {} where {n} more are needed; it was cut", self.bytes.len()));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Outcome<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn u64(&mut self) -> Outcome<usize> {
        let len = u64::from_le_bytes(self.array()?);
        usize::try_from(len).map_err(|_| format!("a length of {len} bytes; it was cut or is damaged"))
    }

    fn line(&mut self) -> Outcome<String> {
        let rest = &self.bytes[self.at..];
        let Some(len) = rest.iter().position(|&b| b == b'\n') else { return Err("a name without an end".to_owned()) };
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    /// A text. Python 2 keeps bytes in the same form, and lone surrogates are no UTF-8 either.
    fn text(&mut self, len: usize) -> Outcome<()> {
        let text = std::str::from_utf8(self.take(len)?);
        self.push(text.map_or(Value::Plain("bytes"), |text| Value::Text(text.to_owned())))
    }

    fn plain(&mut self, kind: &'static str, len: usize) -> Outcome<()> {
        self.take(len)?;
        self.push(Value::Plain(kind))
    }

    fn long(&mut self, len: usize) -> Outcome<()> {
        let value = long(self.take(len)?).map_or(Value::Plain("a big integer"), Value::Int);
        self.push(value)
    }

    /// A class or function by its name.
    fn global(&mut self, module: &str, name: &str) -> Outcome<()> {
        self.copy(module.len() + name.len())?;
        let value = match function(module, name) {
            Some(function) => Value::Function(function),
            None => Value::Foreign(format!("{module}.{name}")),
        };
        self.push(value)
    }

    /// Counts what is copied: one value may be used again and again, and a file's own bytes are the most that a writer can need.
    fn copy(&mut self, n: usize) -> Outcome<()> {
        self.copied += n;
        if self.copied > self.bytes.len() {
            return Err("more entries than a file of its size can hold; it is damaged".to_owned());
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Outcome<()> {
        let id = Id::at(self.values.len()).ok_or("more than 4,294,967,295 values")?;
        self.values.push(value);
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Outcome<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("its stack runs empty; it is damaged".to_owned());
        }
        self.stack.pop().ok_or_else(|| "its stack runs empty; it is damaged".to_owned())
    }

    fn pop_to_mark(&mut self) -> Outcome<Vec<Id>> {
        let at = self.marks.pop().ok_or_else(|| "a list without its start; it is damaged".to_owned())?;
        Ok(self.stack.split_off(at))
    }

    fn get(&self, id: Id) -> &Value {
        &self.values[id.index()]
    }

    fn top(&mut self) -> Outcome<&mut Value> {
        match self.stack.last() {
            Some(id) => Ok(&mut self.values[id.index()]),
            None => Err("its stack runs empty; it is damaged".to_owned()),
        }
    }

    fn tuple(&mut self, n: usize) -> Outcome<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Outcome<Vec<_>>>()?;
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn put(&mut self, at: usize) -> Outcome<()> {
        let top = *self.stack.last().ok_or_else(|| "it notes a value that it has not; it is damaged".to_owned())?;
        // Writers count up from 0, so a number past the bytes read so far is a lie.
        if at >= self.at {
            return Err(format!("memo number {at} after {} bytes; it is damaged", self.at));
        }
        if self.memo.len() <= at {
            self.memo.resize(at + 1, None);
        }
        self.memo[at] = Some(top);
        Ok(())
    }

    fn recall(&mut self, at: usize) -> Outcome<()> {
        let id = self.memo.get(at).copied().flatten();
        self.stack.push(id.ok_or_else(|| format!("memo number {at} was never set; it is damaged"))?);
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Outcome<()> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            Value::Opaque(_) => {}
            other => return Err(format!("items for {}, which is no list", other.kind())),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Outcome<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(dict) if rest.is_empty() => dict.extend(pairs.iter().map(|&[k, v]| (k, v))),
            Value::Dict(_) => return Err("a key without a value".to_owned()),
            Value::Opaque(_) => {}
            other => return Err(format!("entries for {}, which is no dictionary", other.kind())),
        }
        Ok(())
    }

    /// One opcode. `Some` at the end.
    fn step(&mut self) -> Outcome<Option<Id>> {
        match self.byte()? {
            0x80 => {
                let protocol = self.byte()?;
                if protocol > NEWEST {
                    return Err(format!("pickle protocol {protocol}; protocols up to {NEWEST} are read"));
                }
            }
            b'.' => return self.pop().map(Some),
            // FRAME: how many bytes follow, for a reader that wants to fetch them at once.
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let len = self.byte()?.into();
                self.long(len)?;
            }
            0x8b => {
                let len = self.u32()?;
                self.long(len)?;
            }
            b'G' => self.plain("a float", 8)?,
            b'X' | b'T' => {
                let len = self.u32()?;
                self.text(len)?;
            }
            b'U' | 0x8c => {
                let len = self.byte()?.into();
                self.text(len)?;
            }
            0x8d => {
                let len = self.u64()?;
                self.text(len)?;
            }
            b'C' => {
                let len = self.byte()?.into();
                self.plain("bytes", len)?;
            }
            b'B' => {
                let len = self.u32()?;
                self.plain("bytes", len)?;
            }
            0x8e | 0x96 => {
                let len = self.u64()?;
                self.plain("bytes", len)?;
            }
            0x8f => self.plain("a set", 0)?,
            0x90 => {
                self.pop_to_mark()?;
                let top = self.top()?;
                if !matches!(top, Value::Plain(_) | Value::Opaque(_)) {
                    return Err(format!("items for {}, which is no set", top.kind()));
                }
            }
            0x91 => {
                self.pop_to_mark()?;
                self.plain("a set", 0)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            b'q' => {
                let at = self.byte()?.into();
                self.put(at)?;
            }
            b'r' => {
                let at = self.u32()?;
                self.put(at)?;
            }
            0x94 => self.put(self.memo.len())?,
            b'h' => {
                let at = self.byte()?.into();
                self.recall(at)?;
            }
            b'j' => {
                let at = self.u32()?;
                self.recall(at)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (self.get(module), self.get(name)) else {
                    return Err("a name that is no text; it is damaged".to_owned());
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            // NEWOBJ makes an object of a class and its arguments, as REDUCE does of a function; NEWOBJ_EX has arguments by name too.
            b'R' | 0x81 => self.call()?,
            0x92 => {
                self.pop()?;
                self.call()?;
            }
            b'b' => {
                // Attributes beside an OrderedDict's entries, such as `_metadata`, or those of an opaque object: no tensor of a
                // state dict lies there.
                self.pop()?;
                let top = self.top()?;
                if !matches!(top, Value::Dict(_) | Value::Opaque(_)) {
                    return Err(format!("opcode BUILD on {}, which has no attributes; it is damaged", top.kind()));
                }
            }
            other => {
                let at = self.at - 1;
                return Err(format!(
                    "opcode {} (0x{other:02x}) at byte {at}, which torch.save does not write; nothing in it is run",
                    opcode_name(other)
                ));
            }
        }
        Ok(None)
    }

    /// A function and the tuple of its arguments become a value; of a foreign one, an opaque value.
    fn call(&mut self) -> Outcome<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let function = match self.get(callee) {
            Value::Function(function) => *function,
            Value::Foreign(_) => return self.push(Value::Opaque(callee)),
            &Value::Opaque(class) => return self.push(Value::Opaque(class)),
            other => return Err(format!("a call of {}", other.kind())),
        };
        let Value::Tuple(arguments) = self.get(arguments) else {
            return Err("a call without a tuple of arguments".to_owned());
        };
        let value = match (function, arguments.as_slice()) {
            (Function::OrderedDict, []) => Value::Dict(Vec::new()),
            (Function::OrderedDict, &[pairs]) => {
                let pairs = self.pairs(pairs)?;
                self.copy(pairs.len())?;
                Value::Dict(pairs)
            }
            // The value itself, once more.
            (Function::Size, &[value]) | (Function::RebuildParameter, &[value, ..]) => {
                self.stack.push(value);
                return Ok(());
            }
            (Function::RebuildTensor, &[storage, offset, shape, stride, ..]) => match *self.get(storage) {
                Value::Storage(storage) => Value::Tensor(TensorRef {
                    storage,
                    offset: self.size(offset)?,
                    shape: self.sizes(shape)?,
                    stride: self.sizes(stride)?,
                }),
                Value::Opaque(class) => Value::Opaque(class),
                _ => return Err("a tensor over something that is no storage".to_owned()),
            },
            (function, arguments) => {
                return Err(format!(
                    "{function:?} with {} arguments, which torch.save does not write",
                    arguments.len()
                ));
            }
        };
        self.push(value)
    }

    /// The entries of `OrderedDict([(k, v), ..])`.
    fn pairs(&self, id: Id) -> Outcome<Vec<(Id, Id)>> {
        let fail = || "an OrderedDict of something else than pairs".to_owned();
        let Value::List(items) = self.get(id) else { return Err(fail()) };
        let pair = |&item: &Id| match self.get(item) {
            Value::Tuple(pair) | Value::List(pair) => match pair.as_slice() {
                &[k, v] => Ok((k, v)),
                _ => Err(fail()),
            },
            _ => Err(fail()),
        };
        items.iter().map(pair).collect()
    }

    /// `('storage', torch.FloatStorage, key, location, elements)`, and in the legacy form a sixth part that is None. A storage of
    /// elements that are not read is opaque.
    fn storage(&mut self, id: Id) -> Outcome<Value> {
        let fail = |what: &str| Err(format!("a storage whose {what} cannot be read"));
        let Value::Tuple(parts) = self.get(id) else { return fail("description") };
        let (tag, class, key, len, view) = match *parts.as_slice() {
            [tag, class, key, _location, len] => (tag, class, key, len, None),
            [tag, class, key, _location, len, view] => (tag, class, key, len, Some(view)),
            _ => return fail("description"),
        };
        if !matches!(self.get(tag), Value::Text(tag) if tag == "storage") {
            return fail("tag");
        }
        if view.is_some_and(|view| *self.get(view) != Value::None) {
            return Err("a storage that is a view of another one, as torch wrote before 0.4: save it again".to_owned());
        }
        match (self.get(class), self.get(key)) {
            (&Value::Function(Function::Storage(element)), Value::Text(_)) => {
                Ok(Value::Storage(StorageRef { key, element, len: self.size(len)? }))
            }
            (Value::Foreign(_), Value::Text(_)) => {
                self.unread.push(UnreadStorage { key, class });
                Ok(Value::Opaque(class))
            }
            _ => fail("type or key"),
        }
    }

    fn size(&self, id: Id) -> Outcome<usize> {
        match self.get(id) {
            Value::Int(n) => usize::try_from(*n).map_err(|_| format!("{n} as a size or stride")),
            other => Err(format!("{} as a size or stride", other.kind())),
        }
    }

    fn sizes(&self, id: Id) -> Outcome<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= MAX_RANK => {
                items.iter().map(|&i| self.size(i)).collect()
            }
            other => Err(format!("{} as a shape", other.kind())),
        }
    }
}

/// A little-endian integer in two's complement, of 16 bytes at most.
fn long(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = if negative { [0xff; 16] } else { [0; 16] };
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(all))
}

/// Names of the opcodes that somebody may meet.
fn opcode_name(code: u8) -> &'static str {
    match code {
        0x82..=0x84 => "EXT",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'I' => "INT",
        b'F' => "FLOAT",
        b'd' => "DICT",
        b'l' => "LIST",
        _ => "unknown",
    }
}
