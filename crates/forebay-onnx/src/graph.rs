//! A thin layer over ONNX Runtime's model editor: nodes that name their own output, and constants
//! that are copied into memory owned by ONNX Runtime. It knows nothing about encoders.

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::Allocator;
use ort::operator::Attribute;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{
    Outlet, PrimitiveTensorElementType, Shape, SymbolicDimensions, Tensor, TensorElementType,
    ValueType,
};

use crate::error::OnnxError;
use crate::{empty_model, operators};

const CONTRIB_DOMAIN: &str = "com.microsoft";
/// First operator set with `output_dtype` and per-axis scales as used here; Gelu needs 20.
const OPSET: u32 = 21;
/// The operators that a graph is made of.
const OPSETS: [(&str, u32); 3] =
    [(ONNX_DOMAIN, OPSET), (CONTRIB_DOMAIN, 1), (operators::DOMAIN, 1)];
/// Constants from this size on are handed over by reference instead of being copied again; smaller
/// ones are kept inline, where ONNX Runtime's shape inference can read them.
const EXTERNAL_BYTES_MIN: usize = 128;

/// A graph under construction. Every value is known by its name.
pub(crate) struct GraphBuilder {
    graph: Graph,
    nodes: usize,
}

impl GraphBuilder {
    pub(crate) fn new() -> Result<Self, OnnxError> {
        let graph = Graph::new().map_err(OnnxError::runtime("create a graph"))?;
        Ok(Self { graph, nodes: 0 })
    }

    /// Adds a standard ONNX operator with one output and returns the output's name.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Result<String, OnnxError> {
        self.node_of(ONNX_DOMAIN, operator, inputs, attributes)
    }

    /// The same for one of ONNX Runtime's own operators.
    pub(crate) fn contrib_node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Result<String, OnnxError> {
        self.node_of(CONTRIB_DOMAIN, operator, inputs, attributes)
    }

    /// The same for one of our own operators, with so many outputs.
    pub(crate) fn own_node<const OUTPUTS: usize>(
        &mut self,
        operator: &str,
        inputs: &[&str],
    ) -> Result<[String; OUTPUTS], OnnxError> {
        let outputs = std::array::from_fn(|_| self.fresh(operator));
        self.add(operators::DOMAIN, operator, inputs, &outputs, Vec::new())?;
        Ok(outputs)
    }

    fn node_of(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Result<String, OnnxError> {
        let output = self.fresh(operator);
        self.add(domain, operator, inputs, std::slice::from_ref(&output), attributes)?;
        Ok(output)
    }

    /// Gives `value` the name `output` that a caller of the session will use.
    pub(crate) fn name_output(&mut self, value: &str, output: &str) -> Result<(), OnnxError> {
        self.add(ONNX_DOMAIN, "Identity", &[value], &[output.to_owned()], Vec::new())
    }

    fn fresh(&mut self, operator: &str) -> String {
        self.nodes += 1;
        format!("{operator}_{}", self.nodes)
    }

    fn add(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[String],
        attributes: Vec<Attribute>,
    ) -> Result<(), OnnxError> {
        // A node may bear its output's name; both are unique in the graph.
        let name = outputs.first().map_or(operator, String::as_str);
        Node::new(operator, domain, name, inputs, outputs, attributes)
            .and_then(|node| self.graph.add_node(node))
            .map_err(OnnxError::runtime("add a node to the graph"))
    }

    /// Adds a constant and returns its name. `values` has as many elements as `shape` says.
    pub(crate) fn constant<T>(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: &[T],
    ) -> Result<String, OnnxError>
    where
        T: PrimitiveTensorElementType + Copy + std::fmt::Debug + 'static,
    {
        let name = name.into();
        let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)
            .map_err(OnnxError::runtime("allocate a constant"))?;
        tensor.extract_tensor_mut().1.copy_from_slice(values);
        let external = size_of_val(values) >= EXTERNAL_BYTES_MIN;
        self.graph
            .add_initializer(&name, tensor, external)
            .map_err(OnnxError::runtime("add a constant to the graph"))?;
        Ok(name)
    }

    /// Compiles the graph.
    pub(crate) fn into_session(
        mut self,
        inputs: Vec<Outlet>,
        outputs: Vec<Outlet>,
        builder: &SessionBuilder,
    ) -> Result<Session, OnnxError> {
        let action = "compile the graph";
        let empty = empty_model::bytes(outputs.iter().map(Outlet::name), &OPSETS);
        self.graph.set_inputs(inputs).map_err(OnnxError::runtime(action))?;
        self.graph.set_outputs(outputs).map_err(OnnxError::runtime(action))?;
        let opsets = OPSETS
            .into_iter()
            .map(|(domain, version)| Opset::new(domain, version))
            .collect::<Result<Vec<_>, _>>()
            .map_err(OnnxError::runtime(action))?;
        let mut model = Model::new(opsets).map_err(OnnxError::runtime(action))?;
        model.set_graph(self.graph).map_err(OnnxError::runtime(action))?;
        // A session that is made of the graph at once knows no operators of ours; one that begins with
        // an empty model and is given the graph does.
        let mut builder = builder.clone();
        let mut session =
            builder.edit_from_memory(&empty).map_err(OnnxError::runtime("load an empty model"))?;
        session.apply_model(&model).map_err(OnnxError::runtime(action))?;
        session.into_session().map_err(OnnxError::runtime(action))
    }
}

/// An input or output of the graph; a dimension is a size, or a name for one that varies.
pub(crate) fn outlet(name: &str, ty: TensorElementType, dimensions: &[Dimension]) -> Outlet {
    let sizes = dimensions.iter().map(|dimension| match dimension {
        Dimension::Fixed(size) => *size as i64,
        Dimension::Varying(_) => -1,
    });
    let symbols = dimensions.iter().map(|dimension| match dimension {
        Dimension::Fixed(_) => String::new(),
        Dimension::Varying(name) => name.clone(),
    });
    let ty = ValueType::Tensor {
        ty,
        shape: Shape::new(sizes),
        dimension_symbols: SymbolicDimensions::new(symbols),
    };
    Outlet::new(name, ty)
}

/// One dimension of an [`outlet`].
pub(crate) enum Dimension {
    Fixed(usize),
    Varying(String),
}

/// An integer attribute of a node.
pub(crate) fn int(name: &str, value: i64) -> Result<Attribute, OnnxError> {
    Attribute::new(name, value).map_err(OnnxError::runtime("create a node's attribute"))
}

/// A float attribute of a node.
pub(crate) fn float(name: &str, value: f32) -> Result<Attribute, OnnxError> {
    Attribute::new(name, value).map_err(OnnxError::runtime("create a node's attribute"))
}

/// A string attribute of a node.
pub(crate) fn text(name: &str, value: &str) -> Result<Attribute, OnnxError> {
    Attribute::new(name, value.to_owned()).map_err(OnnxError::runtime("create a node's attribute"))
}
