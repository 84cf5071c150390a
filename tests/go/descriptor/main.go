// Command descriptor prints the published descriptor of CRI v1 (a serialised
// google.protobuf.FileDescriptorProto) to standard output. A test compares
// our transcription in crates/api/proto with it.
package main

import (
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	file := protodesc.ToFileDescriptorProto(runtime.File_staging_src_k8s_io_cri_api_pkg_apis_runtime_v1_api_proto)
	bytes, err := proto.Marshal(file)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(bytes)
}
