//! From a server's bytes to maps, and from a change to the next map (RFC 7396, as RFC 8895 sends it).
//!
//! Prefixes and costs go straight to where they are kept: nothing is allocated that the limits of a map do not bound,
//! however the message looks. Fields that are not known are passed over (RFC 7285, section 8.3.7).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{CostMap, Costs, MapError, NetworkMap, PIDS_MAX, PREFIXES_MAX, PidIndex};
use crate::types::{CostMode, CostSource, CostType, Metric, PidName, TAG_LEN_MAX, VersionTag, is_name};

/// Most version tags that a message may depend on.
const DEPENDENT_VTAGS_MAX: usize = 16;

impl NetworkMap {
    /// Reads a network map (section 11.2.1.6). Address families that are not known are passed over.
    ///
    /// # Errors
    /// [`MapError`]; an incomplete map is none.
    pub fn read(json: &[u8]) -> Result<Self, MapError> {
        let message: Message = parse(json, Reader { data: "network-map", seed: Groups { is_patch: false } })?;
        let vtag = message.meta.vtag.and_then(RawTag::whole).ok_or(MapError::Missing("meta/vtag"))?;
        let groups = message.groups.ok_or(MapError::Missing("network-map"))?;
        let pids = groups.into_iter().map(|(name, group)| (name, group.unwrap_or_default().all()));
        Self::with_tag(vtag, pids.collect())
    }

    /// The map after a change.
    ///
    /// # Errors
    /// [`MapError`]: the change is none, or what comes out is no map.
    pub fn patched(&self, patch: &[u8]) -> Result<Self, MapError> {
        let message: Message = parse(patch, Reader { data: "network-map", seed: Groups { is_patch: true } })?;
        let vtag = match message.meta.vtag {
            Some(tag) => tag.over(self.vtag()).ok_or(MapError::Missing("meta/vtag"))?,
            None => self.vtag().clone(),
        };
        let mut pids: BTreeMap<PidName, Group> = self.pids().iter().map(Group::of).collect();
        for (name, group) in message.groups.into_iter().flatten() {
            match group {
                None => _ = pids.remove(&name),
                Some(group) => {
                    let old = pids.entry(name).or_default();
                    old.ipv4 = group.ipv4.or(old.ipv4.take());
                    old.ipv6 = group.ipv6.or(old.ipv6.take());
                }
            }
            if pids.len() > PIDS_MAX {
                return Err(MapError::TooMany { what: "PIDs", max: PIDS_MAX });
            }
        }
        Self::with_tag(vtag, pids.into_iter().map(|(name, group)| (name, group.all())).collect())
    }
}

/// A cost map that was read, and which network map it says that it depends on.
#[derive(Debug)]
pub(crate) struct ReadCosts {
    pub(crate) map: Arc<CostMap>,
    pub(crate) depends_on: VersionTag,
}

impl CostMap {
    /// Reads a cost map (section 11.2.3.6) whose PIDs are from `network`; costs of others are passed over.
    ///
    /// # Errors
    /// [`MapError`], also when it depends on another version of the network map.
    pub fn read(json: &[u8], network: &Arc<NetworkMap>) -> Result<Arc<Self>, MapError> {
        let read = Self::read_any(json, network)?;
        if read.depends_on != *network.vtag() {
            return Err(MapError::Json(format!(
                "the cost map is for version {} of {}, the network map is version {} of {}",
                read.depends_on.tag,
                read.depends_on.resource_id,
                network.vtag().tag,
                network.vtag().resource_id
            )));
        }
        Ok(read.map)
    }

    pub(crate) fn read_any(json: &[u8], network: &Arc<NetworkMap>) -> Result<ReadCosts, MapError> {
        let mut costs = Costs::new(network);
        let seed = Rows { network, costs: &mut costs, is_patch: false };
        let message: Message = parse(json, Reader { data: "cost-map", seed })?;
        if message.groups.is_none() {
            return Err(MapError::Missing("cost-map"));
        }
        let cost_type = message.meta.cost_type.ok_or(MapError::Missing("meta/cost-type"))?.read()?;
        let tags = message.meta.dependent_vtags.and_then(|tags| tags.0.into_iter().next());
        let depends_on = tags.and_then(RawTag::whole).ok_or(MapError::Missing("meta/dependent-vtags"))?;
        Ok(ReadCosts { map: Arc::new(Self::new(Arc::clone(network), cost_type, costs)), depends_on })
    }

    /// The map after a change, between the PIDs of `network`, which may be another version than this map's.
    ///
    /// # Errors
    /// [`MapError`].
    pub(crate) fn patched(&self, patch: &[u8], network: &Arc<NetworkMap>) -> Result<ReadCosts, MapError> {
        let mut costs = Costs::new(network);
        let old = self.network();
        let places: Vec<Option<PidIndex>> =
            old.indices().map(|index| network.index(old.name(index).as_str())).collect();
        for (src, new_src) in old.indices().zip(&places) {
            for (dst, new_dst) in old.indices().zip(&places) {
                if let (Some(new_src), Some(new_dst)) = (new_src, new_dst) {
                    costs.set(*new_src, *new_dst, self.get(src, dst));
                }
            }
        }
        let seed = Rows { network, costs: &mut costs, is_patch: true };
        let message: Message = parse(patch, Reader { data: "cost-map", seed })?;
        let cost_type = match message.meta.cost_type {
            Some(raw) => raw.over(self.cost_type()).read()?,
            None => self.cost_type().clone(),
        };
        let depends_on = match message.meta.dependent_vtags.and_then(|tags| tags.0.into_iter().next()) {
            Some(tag) => tag.whole().ok_or(MapError::Missing("meta/dependent-vtags"))?,
            None => old.vtag().clone(),
        };
        Ok(ReadCosts { map: Arc::new(Self::new(Arc::clone(network), cost_type, costs)), depends_on })
    }
}

/// What a message says beside its data, and the network map's groups; costs go elsewhere.
#[derive(Default)]
struct Message {
    meta: Meta,
    groups: Option<BTreeMap<PidName, Option<Group>>>,
}

#[derive(Default, Deserialize)]
struct Meta {
    vtag: Option<RawTag>,
    #[serde(rename = "dependent-vtags")]
    dependent_vtags: Option<Tags>,
    #[serde(rename = "cost-type")]
    cost_type: Option<RawCostType>,
}

#[derive(Deserialize)]
struct RawTag {
    #[serde(rename = "resource-id")]
    resource_id: Option<String>,
    tag: Option<String>,
}

impl RawTag {
    fn whole(self) -> Option<VersionTag> {
        let tag = VersionTag { resource_id: self.resource_id?, tag: self.tag? };
        let is_tag =
            tag.tag.len() <= TAG_LEN_MAX && tag.tag.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        (is_tag && is_name(&tag.resource_id)).then_some(tag)
    }

    fn over(self, old: &VersionTag) -> Option<VersionTag> {
        let resource_id = self.resource_id.unwrap_or_else(|| old.resource_id.clone());
        Self { resource_id: Some(resource_id), tag: self.tag.or_else(|| Some(old.tag.clone())) }.whole()
    }
}

/// A few version tags.
struct Tags(Vec<RawTag>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = Tags;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "up to {DEPENDENT_VTAGS_MAX} version tags")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tags, A::Error> {
                let mut tags = Vec::new();
                while let Some(tag) = seq.next_element()? {
                    if tags.len() == DEPENDENT_VTAGS_MAX {
                        return Err(A::Error::custom("too many version tags"));
                    }
                    tags.push(tag);
                }
                Ok(Tags(tags))
            }
        }
        deserializer.deserialize_seq(Few)
    }
}

#[derive(Deserialize)]
struct RawCostType {
    #[serde(rename = "cost-metric")]
    metric: Option<String>,
    #[serde(rename = "cost-mode")]
    mode: Option<String>,
    #[serde(rename = "cost-context")]
    context: Option<RawContext>,
}

#[derive(Deserialize)]
struct RawContext {
    #[serde(rename = "cost-source")]
    source: Option<String>,
}

impl RawCostType {
    fn read(self) -> Result<CostType, MapError> {
        let wrong = |error: &dyn fmt::Display| MapError::Json(format!("meta/cost-type: {error}"));
        let metric = self.metric.ok_or(MapError::Missing("meta/cost-type/cost-metric"))?;
        let mode = self.mode.ok_or(MapError::Missing("meta/cost-type/cost-mode"))?;
        let source = self.context.and_then(|context| context.source);
        Ok(CostType {
            metric: Metric::read(&metric).map_err(|error| wrong(&error))?,
            mode: CostMode::parse(&mode).map_err(|error| wrong(&error))?,
            source: source.and_then(|source| CostSource::parse(&source)),
        })
    }

    fn over(mut self, old: &CostType) -> Self {
        self.metric = self.metric.or_else(|| Some(old.metric.as_str().to_owned()));
        self.mode = self.mode.or_else(|| Some(old.mode.as_str().to_owned()));
        let source = old.source.map(|source| source.as_str().to_owned());
        self.context = self.context.or_else(|| source.map(|source| RawContext { source: Some(source) }));
        self
    }
}

/// Prefixes by family; `None` where nothing is said.
#[derive(Default)]
struct Group {
    ipv4: Option<Vec<Ipv4Net>>,
    ipv6: Option<Vec<Ipv6Net>>,
}

impl Group {
    fn of(pid: &super::Pid) -> (PidName, Self) {
        (pid.name.clone(), Self { ipv4: Some(pid.ipv4.clone()), ipv6: Some(pid.ipv6.clone()) })
    }

    fn all(self) -> Vec<IpNet> {
        let ipv4 = self.ipv4.into_iter().flatten().map(IpNet::V4);
        ipv4.chain(self.ipv6.into_iter().flatten().map(IpNet::V6)).collect()
    }
}

fn parse<'a, S>(json: &'a [u8], reader: Reader<S>) -> Result<Message, MapError>
where
    S: DeserializeSeed<'a, Value = Option<BTreeMap<PidName, Option<Group>>>>,
{
    let wrong = |error: serde_json::Error| MapError::Json(error.to_string());
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let message = (&mut deserializer).deserialize_map(reader).map_err(wrong)?;
    deserializer.end().map_err(wrong)?;
    Ok(message)
}

/// The outermost object.
struct Reader<S> {
    data: &'static str,
    seed: S,
}

impl<'de, S> Visitor<'de> for Reader<S>
where
    S: DeserializeSeed<'de, Value = Option<BTreeMap<PidName, Option<Group>>>>,
{
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with meta and {}", self.data)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
        let mut message = Message::default();
        let mut seed = Some(self.seed);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "meta" {
                message.meta = map.next_value()?;
            } else if key == self.data {
                let Some(seed) = seed.take() else {
                    return Err(A::Error::custom(format!("{} comes twice", self.data)));
                };
                message.groups = map.next_value_seed(seed)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(message)
    }
}

fn pid_name<E: Error>(text: &str) -> Result<PidName, E> {
    PidName::new(text).map_err(E::custom)
}

/// Groups of a network map.
struct Groups {
    is_patch: bool,
}

impl<'de> DeserializeSeed<'de> for Groups {
    type Value = Option<BTreeMap<PidName, Option<Group>>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Groups {
    type Value = Option<BTreeMap<PidName, Option<Group>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of PIDs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut groups = BTreeMap::new();
        let mut left = PREFIXES_MAX;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if groups.len() == PIDS_MAX {
                return Err(A::Error::custom(format!("more than {PIDS_MAX} PIDs")));
            }
            let group = map.next_value_seed(GroupSeed { is_patch: self.is_patch, left: &mut left })?;
            groups.insert(pid_name(&key)?, group);
        }
        Ok(Some(groups))
    }
}

struct GroupSeed<'a> {
    is_patch: bool,
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for GroupSeed<'_> {
    type Value = Option<Group>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Group>, D::Error> {
        if self.is_patch { deserializer.deserialize_option(self) } else { deserializer.deserialize_map(self) }
    }
}

impl<'de> Visitor<'de> for GroupSeed<'_> {
    type Value = Option<Group>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lists of prefixes by address family")
    }

    fn visit_none<E>(self) -> Result<Option<Group>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Group>, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Group>, A::Error> {
        let mut group = Group::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "ipv4" => {
                    let list = map.next_value_seed(Prefixes::new(self.is_patch, self.left))?;
                    group.ipv4 = Some(list);
                }
                "ipv6" => {
                    let list = map.next_value_seed(Prefixes::new(self.is_patch, self.left))?;
                    group.ipv6 = Some(list);
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(Some(group))
    }
}

/// A list of prefixes of one family; in a change `null` stands for none.
struct Prefixes<'a, P> {
    is_patch: bool,
    left: &'a mut usize,
    family: std::marker::PhantomData<P>,
}

impl<'a, P> Prefixes<'a, P> {
    fn new(is_patch: bool, left: &'a mut usize) -> Self {
        Self { is_patch, left, family: std::marker::PhantomData }
    }
}

impl<'de, P: std::str::FromStr> DeserializeSeed<'de> for Prefixes<'_, P> {
    type Value = Vec<P>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<P>, D::Error> {
        if self.is_patch { deserializer.deserialize_option(self) } else { deserializer.deserialize_seq(self) }
    }
}

impl<'de, P: std::str::FromStr> Visitor<'de> for Prefixes<'_, P> {
    type Value = Vec<P>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of prefixes")
    }

    fn visit_none<E>(self) -> Result<Vec<P>, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<P>, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<P>, A::Error> {
        let mut prefixes = Vec::new();
        while let Some(text) = seq.next_element::<Cow<'de, str>>()? {
            let Some(left) = self.left.checked_sub(1) else {
                return Err(A::Error::custom(format!("more than {PREFIXES_MAX} prefixes")));
            };
            *self.left = left;
            let shown = || crate::types::shortened(&text);
            let prefix = text.parse::<P>();
            prefixes.push(prefix.map_err(|_| A::Error::custom(format!("{:?} is no prefix", shown())))?);
        }
        Ok(prefixes)
    }
}

/// Rows of a cost map.
struct Rows<'a> {
    network: &'a NetworkMap,
    costs: &'a mut Costs,
    is_patch: bool,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = Option<BTreeMap<PidName, Option<Group>>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = Option<BTreeMap<PidName, Option<Group>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of source PIDs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let src = self.network.index(pid_name::<A::Error>(&key)?.as_str());
            let row = Row { network: self.network, costs: &mut *self.costs, src, is_patch: self.is_patch };
            map.next_value_seed(row)?;
        }
        Ok(Some(BTreeMap::new()))
    }
}

struct Row<'a> {
    network: &'a NetworkMap,
    costs: &'a mut Costs,
    src: Option<PidIndex>,
    is_patch: bool,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.is_patch { deserializer.deserialize_option(self) } else { deserializer.deserialize_map(self) }
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of costs by destination PID")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        for dst in self.network.indices() {
            if let Some(src) = self.src {
                self.costs.set(src, dst, None);
            }
        }
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            // A cost is a number, unless an extension says otherwise, which none does here (section 11.2.3.6).
            let cost =
                if self.is_patch { map.next_value::<Option<f64>>()? } else { Some(map.next_value::<f64>()?) };
            let dst = self.network.index(pid_name::<A::Error>(&key)?.as_str());
            if let (Some(src), Some(dst)) = (self.src, dst) {
                self.costs.set(src, dst, cost);
            }
        }
        Ok(())
    }
}
