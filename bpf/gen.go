package bpf

// The objects are built by clang 19 alone: another version may emit other,
// equally good instructions, and regenerating must leave no difference.
//go:generate go tool -modfile=../internal/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type nic_config -type steer_order -type steer_counter -type steer_limit -type conn_key -type conn_place -type injected_mac steer steer.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror
//go:generate go tool -modfile=../internal/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type ticket -type control -type delivery -type passed -type ticket_status -type delivery_flag -type delivery_limit -type ticket_counter ticket ticket.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror
//go:generate go tool -modfile=../internal/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types ingress ingress.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror
//go:generate go tool -modfile=../internal/tools/go.mod bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types raw raw.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror
