"""Knowledge graph embeddings by name. A choice is one file here and one line below."""

from pkgllm.kge.embedding import Embedding
from pkgllm.registry import Registry

EMBEDDINGS: Registry[Embedding] = Registry(
    "embedding",
    "pkgllm.embeddings",
    {
        "hake": "pkgllm.kge.embeddings.hake:Hake",
        "kbgat": "pkgllm.kge.embeddings.kbgat:Kbgat",
        "complex": "pkgllm.kge.embeddings.complex:Complex",
        "rotate": "pkgllm.kge.embeddings.rotate:Rotate",
        "tucker": "pkgllm.kge.embeddings.tucker:Tucker",
        "comp_gcn": "pkgllm.kge.embeddings.comp_gcn:CompGcn",
        "node_piece": "pkgllm.kge.embeddings.node_piece:NodePiece",
    },
)
