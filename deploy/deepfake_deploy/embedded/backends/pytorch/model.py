"""The embedded Triton's `pytorch` backend: TorchScript in Python, by the rules of NVIDIA's C++ LibTorch backend.

Triton runs this file in its Python stub for every model whose configuration says `backend: "pytorch"`. Numpy is never
touched: tensors pass by DLPack, without a copy on their way in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from deepfake_deploy.embedded import libtorch_rules as rules
from deepfake_deploy.embedded.installation import usable_cpus


class TritonPythonModel:
    """One instance of one TorchScript model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load `<version>/<default_model_filename>` onto the instance's device and check the configuration against it.

        `args` are Triton's: model_config (JSON), model_repository, model_version, model_instance_kind and
        model_instance_device_id. Whatever is raised becomes the model's load error.
        """
        config = json.loads(args["model_config"])
        parameters = config.get("parameters", {})
        self._batching = config["max_batch_size"] > 0
        self._inference_mode = rules.boolean_parameter(parameters, "INFERENCE_MODE", True)
        self._optimized = not rules.boolean_parameter(parameters, "DISABLE_OPTIMIZED_EXECUTION", False)
        if threads := parameters.get("INTRA_OP_THREAD_COUNT"):
            torch.set_num_threads(int(threads["string_value"]))
        elif "OMP_NUM_THREADS" not in os.environ:  # as for LibTorch, where it is what limits the threads
            torch.set_num_threads(usable_cpus())

        self._device = self._instance_device(args)
        file_name = config.get("default_model_filename") or "model.pt"
        path = Path(args["model_repository"], args["model_version"], file_name)
        if not path.is_file():
            raise FileNotFoundError(f"unable to find '{path}'; `deepfake export` writes it")
        try:
            with torch.inference_mode(self._inference_mode):
                self._module = torch.jit.load(str(path), map_location=self._device)
        except RuntimeError as error:
            reason = str(error).split("\n")[0].split(". ")[0]
            raise RuntimeError(f"{path} cannot be loaded ({reason}); write it again with `deepfake export`") from error

        arguments = [argument.name for argument in self._module.forward.schema.arguments if argument.name != "self"]
        self._inputs = rules.forward_order([tensor["name"] for tensor in config["input"]], arguments)
        # In the order of forward()'s tuple, and never by name: two that are listed in the wrong order are swapped.
        self._output_dtypes = {
            tensor["name"]: getattr(torch, rules.torch_dtype_name("output", tensor)) for tensor in config["output"]
        }
        # What does not fit fails here, with its reason: Triton 2.51 may crash after a failed warm-up.
        tensors = {tensor["name"]: tensor for tensor in config["input"]}
        self._forward([self._example(tensors[name]) for name in self._inputs])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer all requests of one dynamic batch with one forward pass.

        Triton has already checked names, datatypes and shapes of the inputs against the configuration, and that the
        rows of all requests together do not exceed max_batch_size.
        """
        try:
            inputs: list[torch.Tensor] = []
            rows: list[int] = []
            for name in self._inputs:
                parts = [
                    torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())
                    for request in requests
                ]
                rows = [part.shape[0] for part in parts]
                inputs.append((parts[0] if len(parts) == 1 else torch.cat(parts)).to(self._device))
            outputs = self._forward(inputs)
        except Exception as error:
            # One forward pass serves them all, so its failure is everyone's; the server itself goes on. Raised, it counts
            # with reason BACKEND, as LibTorch's does; as an answer to each request it would count as a success.
            raise RuntimeError(f"PyTorch execute failure: {error}") from None
        return self._responses(requests, outputs, rows if self._batching else None)

    def _forward(self, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        with (
            torch.jit.optimized_execution(self._optimized),
            torch.inference_mode(self._inference_mode),
            torch.no_grad(),
        ):
            try:
                result = self._module(*inputs)
            except torch.jit.Error as error:  # what the TorchScript itself raises comes last, below a traceback
                raise RuntimeError(str(error).strip().rpartition("\n")[2].partition(": ")[2]) from None
        results = result if isinstance(result, tuple) else (result,)
        if len(results) < len(self._output_dtypes):
            raise rules.ConfigurationError(
                f"the configuration has {len(self._output_dtypes)} outputs, this model has {len(results)}"
            )
        outputs = {}
        for (name, dtype), tensor in zip(self._output_dtypes.items(), results, strict=False):
            if tensor.dtype != dtype:
                raise rules.ConfigurationError(
                    f"the configuration expects {dtype} for output '{name}', the model provides {tensor.dtype}"
                )
            outputs[name] = tensor.cpu().contiguous()
        return outputs

    def _responses(
        self, requests: Sequence[Any], outputs: dict[str, torch.Tensor], rows: list[int] | None
    ) -> list[Any]:
        """Give each request its own rows; `rows` is None for a model that does not batch (one request a call)."""
        parts = {name: [tensor] if rows is None else tensor.split(rows) for name, tensor in outputs.items()}
        responses = []
        for index, request in enumerate(requests):
            wanted = request.requested_output_names()
            tensors = [pb_utils.Tensor.from_dlpack(name, part[index]) for name, part in parts.items() if name in wanted]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses

    def _example(self, tensor: dict[str, Any]) -> torch.Tensor:
        """Zeros of the shape of a configured input, 1 where it is free."""
        shape = [1] * self._batching + [max(int(size), 1) for size in tensor["dims"]]
        return torch.zeros(shape, dtype=getattr(torch, rules.torch_dtype_name("input", tensor)), device=self._device)

    @staticmethod
    def _instance_device(args: dict[str, str]) -> torch.device:
        if args["model_instance_kind"] != "GPU":
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise RuntimeError("the instance group asks for a GPU and torch finds none; serve with configs/cpu.pbtxt")
        return torch.device("cuda", int(args["model_instance_device_id"]))
