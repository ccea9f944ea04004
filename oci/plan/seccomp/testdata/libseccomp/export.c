/* Reads a profile as libseccomp_test.go writes it and exports libseccomp's program
 * for it: cc export.c -lseccomp. Names that it does not know go to stderr. */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
	char word[64], name[128];
	uint32_t action;
	scmp_filter_ctx ctx = NULL;

	while (scanf("%63s", word) == 1) {
		if (strcmp(word, "default") == 0) {
			if (scanf("%" SCNx32, &action) != 1 || !(ctx = seccomp_init(action)))
				return 2;
		} else if (strcmp(word, "arch") == 0) {
			if (scanf("%63s", name) != 1)
				return 2;
			int rc = seccomp_arch_add(ctx, seccomp_arch_resolve_name(name));
			if (rc < 0 && rc != -EEXIST)
				return 3;
		} else if (strcmp(word, "rule") == 0) {
			unsigned n, i;
			struct scmp_arg_cmp cmp[6];
			if (scanf("%127s %" SCNx32 " %u", name, &action, &n) != 3 || n > 6)
				return 2;
			for (i = 0; i < n; i++) {
				unsigned arg, op;
				uint64_t a, b;
				if (scanf("%u %u %" SCNx64 " %" SCNx64, &arg, &op, &a, &b) != 4)
					return 2;
				cmp[i] = (struct scmp_arg_cmp){arg, op, a, b};
			}
			int nr = seccomp_syscall_resolve_name(name);
			if (nr == __NR_SCMP_ERROR) {
				fprintf(stderr, "%s\n", name);
				continue;
			}
			int rc = seccomp_rule_add_array(ctx, action, nr, n, cmp);
			if (rc < 0 && rc != -EEXIST && rc != -EDOM)
				return fprintf(stderr, "!%s %d\n", name, rc), 4;
		} else
			return 2;
	}
	return seccomp_export_bpf(ctx, 1) < 0;
}
