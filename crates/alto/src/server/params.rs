//! From a request's body to what it asks for, or to the one error that is reported (section 8.5.2).

use serde_json::{Map, Value};

use super::error::Problem;
use super::site::MapSite;
use crate::map::CostMap;
use crate::types::{CostMode, CostType};

/// An object of a request, and its path in it.
pub(crate) struct Object<'a> {
    fields: &'a Map<String, Value>,
    path: &'a str,
}

/// Parses a body. How deep it may be nested is bounded by the parser.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Problem> {
    let value: Value = serde_json::from_slice(body).map_err(|error| Problem::syntax(&error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(Problem::syntax("a JSON object is expected")) }
}

impl<'a> Object<'a> {
    /// The whole request.
    pub(crate) fn root(value: &'a Value) -> Result<Self, Problem> {
        let fields = value.as_object().ok_or_else(|| Problem::syntax("a JSON object is expected"))?;
        Ok(Self { fields, path: "" })
    }

    /// A field's path.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name)
    }

    pub(crate) fn required(&self, name: &str) -> Result<&'a Value, Problem> {
        self.get(name).ok_or_else(|| Problem::missing(self.path(name)))
    }

    pub(crate) fn object(&self, name: &'a str) -> Result<Option<Object<'a>>, Problem> {
        debug_assert!(self.path.is_empty(), "requests are two objects deep");
        let Some(value) = self.get(name) else { return Ok(None) };
        let fields = value.as_object().ok_or_else(|| Problem::wrong_type(self.path(name)))?;
        Ok(Some(Object { fields, path: name }))
    }

    pub(crate) fn required_object(&self, name: &'a str) -> Result<Object<'a>, Problem> {
        self.object(name)?.ok_or_else(|| Problem::missing(self.path(name)))
    }

    pub(crate) fn required_string(&self, name: &str) -> Result<&'a str, Problem> {
        self.required(name)?.as_str().ok_or_else(|| Problem::wrong_type(self.path(name)))
    }

    /// A list of texts. An element of another type is a wrong value, not a wrong type.
    pub(crate) fn strings(&self, name: &str) -> Result<Option<Vec<&'a str>>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let elements = value.as_array().ok_or_else(|| Problem::wrong_type(self.path(name)))?;
        let text = |element: &'a Value| {
            element.as_str().ok_or_else(|| Problem::wrong_value(self.path(name), element))
        };
        elements.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    pub(crate) fn required_strings(&self, name: &str) -> Result<Vec<&'a str>, Problem> {
        self.strings(name)?.ok_or_else(|| Problem::missing(self.path(name)))
    }

    /// A list of names of PIDs: those that obey the rules for names, defined or not.
    pub(crate) fn pids(&self, name: &str) -> Result<Vec<&'a str>, Problem> {
        let names = self.required_strings(name)?;
        match names.iter().find(|pid| !crate::types::is_name(pid)) {
            Some(bad) => Err(Problem::wrong_text(self.path(name), bad)),
            None => Ok(names),
        }
    }
}

/// A cost type that is offered, and the numerical costs that it is made of.
pub(crate) fn cost_type<'a>(root: &Object<'_>, map: &'a MapSite) -> Result<(CostType, &'a CostMap), Problem> {
    let asked = root.required_object("cost-type")?;
    let (metric, mode) = (asked.required_string("cost-metric")?, asked.required_string("cost-mode")?);
    let costs = map.costs.iter().find(|costs| costs.cost_type().metric.as_str() == metric);
    let costs = costs.ok_or_else(|| Problem::wrong_text(asked.path("cost-metric"), metric))?;
    let mode = CostMode::parse(mode).map_err(|_| Problem::wrong_text(asked.path("cost-mode"), mode))?;
    Ok((CostType { mode, ..costs.cost_type().clone() }, costs))
}

/// One constraint (section 11.3.2.3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Constraint {
    operator: Operator,
    target: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Gt,
    Lt,
    Ge,
    Le,
    Eq,
}

impl Constraint {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let operator = match words.next()? {
            "gt" => Operator::Gt,
            "lt" => Operator::Lt,
            "ge" => Operator::Ge,
            "le" => Operator::Le,
            "eq" => Operator::Eq,
            _ => return None,
        };
        let target: f64 = words.next()?.parse().ok()?;
        (words.next().is_none() && target.is_finite()).then_some(Self { operator, target })
    }

    /// Whether `cost` may be told.
    pub(crate) fn allows(&self, cost: f64) -> bool {
        match self.operator {
            Operator::Gt => cost > self.target,
            Operator::Lt => cost < self.target,
            Operator::Ge => cost >= self.target,
            Operator::Le => cost <= self.target,
            Operator::Eq => cost == self.target,
        }
    }
}

/// The constraints, all of which hold for what is told; refused where they are not offered.
pub(crate) fn constraints(root: &Object<'_>, are_offered: bool) -> Result<Vec<Constraint>, Problem> {
    let Some(value) = root.get("constraints") else { return Ok(Vec::new()) };
    if !are_offered {
        return Err(Problem::wrong_value(root.path("constraints"), value));
    }
    let texts = root.strings("constraints")?.unwrap_or_default();
    let read = |text: &str| {
        Constraint::parse(text).ok_or_else(|| Problem::wrong_text(root.path("constraints"), text))
    };
    texts.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_an_operator_and_a_number() {
        let allowed = |text: &str| {
            let constraint = Constraint::parse(text).unwrap();
            [1.0, 2.0, 3.0].map(|cost| constraint.allows(cost))
        };
        assert_eq!(allowed("gt 2"), [false, false, true]);
        assert_eq!(allowed("lt 2.0"), [true, false, false]);
        assert_eq!(allowed("ge\t2"), [false, true, true]);
        assert_eq!(allowed("le  2"), [true, true, false]);
        assert_eq!(allowed("eq 2e0"), [false, true, false]);
        for bad in ["", "gt", "2", "ne 2", "gt two", "gt 2 3", "GT 2", "gt2", "gt inf", "gt NaN"] {
            assert_eq!(Constraint::parse(bad), None, "{bad}");
        }
    }
}
