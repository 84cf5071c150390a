/* Says who it is. Belongs to root and is setuid in its image, so that it is
 * root for a user who may gain privileges, and that user for one who may not. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %d\n", geteuid());
	return 0;
}
